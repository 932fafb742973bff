"""The Python API: what the commands do, for use in a notebook, a thread or a script.

The functions restore whatever they change in the process: signal handlers, OmegaConf's resolvers, thread counts and
random state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, problem
from era_cnn.machine import spin_briefly

if TYPE_CHECKING:
    from era_cnn.compose.words import Words
    from era_cnn.training.listeners import Listener  # imports torch
    from era_cnn.use.network import Run


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> RunConfig:
    """The typed config that `era-cnn OVERRIDES` would run.

    Args:
        overrides: As on the command line, such as ["experiment=model_3", "optimizer.lr=0.02"].
        config_dir: A folder with your own config groups.

    Raises:
        ConfigError: If the config is wrong; lists every problem.
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
    """Trains a config in a new run folder, as the command does, and returns the completed run.

    Args:
        config: A config from `compose`, or overrides as on the command line.
        folder: Where to write; None for `outputs/<date>/<time>_<experiment>`, or `hydra.run.dir`. If it exists, a
            number is added to its name.
        listeners: Called during the training; see `era_cnn.Listener`.
        config_dir: A folder with your own config groups, for overrides.
        quiet: Whether to print nothing; run.log is written anyway.

    Raises:
        EraCnnError: If an error ended the run; its folder records the error as well.
        KeyboardInterrupt: If the run was interrupted. It was saved first; `resume` continues it.
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
    """Continues an interrupted or failed run, to exactly the same result; a completed run is left as it is.

    Args:
        path: The folder of the run.
        listeners: The listeners that the run was started with, if they added members to its state.
        data_root: Where the data is now, if it was moved.
        quiet: Whether to print nothing; run.log is written anyway.

    Raises:
        EraCnnError: If the run can't be continued, or an error ended it.
        KeyboardInterrupt: If the run was interrupted again.
    """
    spin_briefly()
    from era_cnn.folders.stored import run_folder
    from era_cnn.runs.carry_out import carry_out

    folder = run_folder(Path(path))
    root = None if data_root is None else str(data_root)
    carry_out(folder, ["era_cnn.resume", str(path)], data_root=root, listeners=listeners, quiet=quiet, raises=True)
    return load(path)


def load(path: str | Path) -> Run:
    """Opens an existing run, with its config, result, metrics and network.

    Raises:
        ConfigError: If there is no such folder, or it is that of a sweep.
        RunFolderError: If its config is missing or damaged.
    """
    spin_briefly()
    from era_cnn.use.network import Run

    return Run(path)


def _words(overrides: Sequence[str], config_dir: str | Path | None) -> Words:
    from era_cnn.compose.words import Words

    if isinstance(overrides, str):
        raise ConfigError([problem("overrides", "be a list of strings", overrides, "Put it into brackets.")])
    return Words(list(overrides), config_dir=None if config_dir is None else str(config_dir))
