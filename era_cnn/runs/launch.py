"""From words to a run: everything is checked, a folder is claimed, and Hydra does the rest.

Hydra makes its folders without asking whether they are taken, and before a job can say that its config is wrong. So
both are settled here first, and Hydra is told which folder to use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from era_cnn.compose.planner import resolved, validated
from era_cnn.compose.questions import call_hydra
from era_cnn.compose.words import Words, quote
from era_cnn.errors import ConfigError


def launch(words: Words, composed: DictConfig, typed: Sequence[str]) -> int:
    """Does a run, as Hydra's command line asks for it; returns the exit code.

    Raises:
        ConfigError: With every problem that the config has.
        EraCnnError: If the run can't begin; then nothing is left of it.
    """
    _check_options_of_sweeps(words)
    config = validated(composed)
    from era_cnn.folders.claims import claim  # from here on torch is needed
    from era_cnn.runs.parts import check

    check(config)
    claimed = claim(Path(resolved(composed, "hydra.run.dir")))
    written_by_then = "config.yaml"  # of a run that has begun
    try:
        code = call_hydra(typed, f"hydra.run.dir='{quote(str(claimed.path))}'")
        if code in (2, 3, 4):
            written_by_then = "provenance.json"  # the data were not there, or the network could not be built
        return code
    finally:
        if not (claimed.path / written_by_then).exists():
            claimed.give_back()


def _check_options_of_sweeps(words: Words) -> None:
    """Raises a `ConfigError` if something was typed that has no effect on a single run."""
    keys = [text.lstrip("+~").partition("=")[0] for text in words.overrides]
    if typed := [key for key in keys if key.partition(".")[0] == "sweep"]:
        raise ConfigError([f"{key} must go with a sweep, got a single run. Add -m, or leave it out." for key in typed])
