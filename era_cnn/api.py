"""The package in Python: what the commands do, in a notebook, a thread or a script.

Whatever is changed in the process meanwhile (signal handlers, OmegaConf's resolvers, thread counts, random state) is
restored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, problem
from era_cnn.runs.machine import spin_briefly

if TYPE_CHECKING:
    from era_cnn.compose.words import Words
    from era_cnn.training.listeners import Listener  # and with it torch
    from era_cnn.use.network import Run


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> RunConfig:
    """The typed config that `era-cnn OVERRIDES` would run.

    Args:
        overrides: As on the command line, such as ["experiment=model_3", "optimizer.lr=0.02"].
        config_dir: A folder with groups of your own.

    Raises:
        ConfigError: With every problem that the config has.
    """
    from era_cnn.compose import composition

    return composition.validated(composition.compose(_words(overrides, config_dir)))


def train(
    config: RunConfig | Sequence[str] = (),
    *,
    folder: str | Path | None = None,
    listeners: Sequence[Listener] = (),
    config_dir: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Trains a config in a new run folder, as the command does, and gives the completed run.

    Args:
        config: What `compose` gave, or overrides as on the command line.
        folder: Where to write; None for `outputs/<date>/<time>_<experiment>`, or `hydra.run.dir`. If it is taken, a
            number is added to its name.
        listeners: Hear of the training; see `era_cnn.Listener`.
        config_dir: A folder with groups of your own, for overrides.
        quiet: Whether nothing is printed; run.log has it all the same.

    Raises:
        EraCnnError: Whatever ended the run; its folder says so as well.
        KeyboardInterrupt: If it was interrupted, after it was saved: `resume` continues it.
    """
    spin_briefly()
    from era_cnn.runs.start import no_files, start

    if isinstance(config, RunConfig):
        now = datetime.now()
        settled, wanted = config, f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}_{config.name}"
        files: Callable[[Path], Mapping[str, str]] = no_files
        command = ["era_cnn.train"]
    else:
        from era_cnn.compose import composition

        words = _words(config, config_dir)
        planned = composition.plan_run(words, composition.compose(words))
        settled, wanted, files = planned.config, planned.folder, planned.hydra_files
        command = ["era_cnn.train", *config]
    claimed: list[Path] = []
    start(
        settled,
        Path(folder or wanted),
        command,
        hydra_files=files,
        listeners=listeners,
        quiet=quiet,
        raises=True,
        on_claim=claimed.append,
    )
    return load(claimed[0])


def resume(
    path: str | Path, *, listeners: Sequence[Listener] = (), data_root: str | Path | None = None, quiet: bool = False
) -> Run:
    """Continues an interrupted or failed run in its folder, to the very same result; a completed one is left as it is.

    Args:
        path: The folder of the run.
        listeners: Those that it was started with, if they are part of its state.
        data_root: Where the data is now, if it was moved.
        quiet: Whether nothing is printed.

    Raises:
        EraCnnError: If it can't be continued, and whatever ended it.
        KeyboardInterrupt: If it was interrupted once more.
    """
    spin_briefly()
    from era_cnn.folders.stored import run_folder
    from era_cnn.runs.carry_out import carry_out

    folder = run_folder(Path(path))
    root = None if data_root is None else str(data_root)
    carry_out(folder, ["era_cnn.resume", str(path)], data_root=root, listeners=listeners, quiet=quiet, raises=True)
    return load(path)


def load(path: str | Path) -> Run:
    """A run that is there: its config, result, metrics and network.

    Raises:
        ConfigError: If there is no such folder, or it is that of a sweep.
        RunFolderError: If its config is not there or damaged.
    """
    spin_briefly()
    from era_cnn.use.network import Run

    return Run(path)


def _words(overrides: Sequence[str], config_dir: str | Path | None) -> Words:
    from era_cnn.compose.words import Words

    if isinstance(overrides, str):
        raise ConfigError([problem("overrides", "be a list of strings", overrides, "Put it into brackets.")])
    return Words(list(overrides), config_dir=None if config_dir is None else str(config_dir))
