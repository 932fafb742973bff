"""The options of a resumed sweep: those that it recorded, changed by the overrides that `resume` was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from era_cnn.compose.composition import compose
from era_cnn.compose.guard import check_composed
from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.ignored import ignored_overrides
from era_cnn.compose.words import Words
from era_cnn.errors import ConfigError


def changed(
    typed: Words,
    sweep: Mapping[str, Any],
    launcher: Mapping[str, Any],
    sweeper: Mapping[str, Any],
    changes: Sequence[str],
) -> Composed:
    """The config of a resumed sweep, as far as it decides how jobs run.

    Args:
        typed: The words that started the sweep.
        sweep: The recorded section `sweep`.
        launcher: The recorded section `hydra.launcher`.
        sweeper: The recorded section `hydra.sweeper`.
        changes: Overrides such as `hydra/launcher=local` and `sweep.retries=2`.

    Raises:
        ConfigError: If an override is wrong, or a recorded section would run code.
    """
    chosen = [text for text in changes if text.startswith("hydra/launcher=")]
    own_dir = typed.config_dir if chosen else None
    composed = compose(Words([*chosen, *_threads(typed)], config_dir=own_dir), RunMode.MULTIRUN)
    with open_dict(composed):
        composed.sweep = {**sweep, "reuse_from": composed.sweep.reuse_from}  # its own may be anybody's folders
        composed.hydra.sweeper = dict(sweeper)
        if not chosen:
            composed.hydra.launcher = dict(launcher)
        for change in parse_changes([text for text in changes if text not in chosen]):
            OmegaConf.update(composed, change.key_or_group, change.value())
    check_composed(composed)
    return composed


def _threads(words: Words) -> list[str]:
    """The override of `threads`, if all jobs have the same: a launcher requests as many cores."""
    return [text for text in words.overrides if text.startswith("threads=") and text.partition("=")[2].isdecimal()]


def parse_changes(texts: Sequence[str]) -> list[Override]:
    """Parses overrides of a resumed sweep.

    Raises:
        ConfigError: If one is not an override.
    """
    parsed = []
    for text in texts:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except Exception as error:  # Hydra's parser also raises ValueError
            reason = " ".join(str(error).split())
            raise ConfigError([f"{text} must be key=value, got: {reason}. See era-cnn resume --help."]) from error
    if problems := list(ignored_overrides(parsed)):
        raise ConfigError(problems)
    return parsed
