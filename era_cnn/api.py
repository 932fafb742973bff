"""The Python API: what the commands do, for use in a notebook, a thread or a script.

The functions restore whatever they change in the process: signal handlers, OmegaConf's resolvers, thread counts and
random state. What libraries set for the whole process when they are imported stays, since they rely on it later:
scikit-learn, which `data=digits` imports, the environment variables KMP_DUPLICATE_LIB_OK and KMP_INIT_AT_FORK, and
PyTorch's compiler TORCHINDUCTOR_CACHE_DIR.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, problem
from era_cnn.machine import spin_briefly
from era_cnn.paths import current_folder, expanded, typed_path
from era_cnn.portable import choose_arithmetic, prefer_arithmetic

if TYPE_CHECKING:
    from era_cnn.compose.words import Words
    from era_cnn.runs.find_lr import LrTest  # imports torch
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

    return composition.compose_run(_words(overrides, config_dir))


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
    if isinstance(config, RunConfig):
        _refuse_config_dir(config_dir)
        now = datetime.now()
        settled, wanted = _checked(config), f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}_{config.name}"
        files: Callable[[Path], Mapping[str, str]] | None = None
        command = ["era_cnn.train"]
    else:
        from era_cnn.compose import composition

        words = _words(config, config_dir)
        planned = composition.plan_run(words, composition.compose(words))
        settled, wanted, files = planned.config, planned.folder, planned.hydra_files
        command = ["era_cnn.train", *words.overrides]
    place = wanted if folder is None else typed_path("folder", str(folder))
    _import_torch(portable=settled.portable)
    from era_cnn.runs.start import start

    _check_listeners(listeners)
    claimed: list[Path] = []
    start(
        settled,
        Path(place),
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
    from era_cnn.folders.stored import is_portable, run_folder

    folder = run_folder(Path(path))
    _import_torch(portable=is_portable(folder))
    _check_listeners(listeners)
    from era_cnn.runs.carry_out import carry_out

    root = None if data_root is None else str(data_root)
    carry_out(folder, ["era_cnn.resume", str(path)], data_root=root, listeners=listeners, quiet=quiet, raises=True)
    return load(path)


def find_lr(
    config: RunConfig | Sequence[str] = (),
    *,
    start: float = 1e-5,
    end: float = 10.0,
    steps: int = 200,
    seeds: int = 1,
    config_dir: str | Path | None = None,
) -> LrTest:
    """Suggests a learning rate by a range test (Smith 2015, arXiv 1506.01186), as the command does.

    Args:
        config: A config from `compose`, or overrides as on the command line.
        start: The first learning rate.
        end: The last one.
        steps: The updates of a test.
        seeds: The number of tests, with the seed of the config and those after it.
        config_dir: A folder with your own config groups, for overrides.

    Returns:
        The outcome: its `suggestion` and `override` are None, with a `problem`, if there is nothing to suggest.

    Raises:
        EraCnnError: If the config or the range is wrong, or the data is missing.
    """
    typed: list[str] = []
    if isinstance(config, RunConfig):
        _refuse_config_dir(config_dir)
        recipe = _checked(config)
    else:
        from era_cnn.compose.composition import compose_lr_test

        words = _words(config, config_dir)
        recipe, typed = compose_lr_test(words), words.overrides
    _import_torch(portable=recipe.portable)
    from era_cnn.runs.find_lr import find_lr as find

    return find(recipe, ["era_cnn.find_lr", *typed], start=start, end=end, steps=steps, seeds=seeds)


def load(path: str | Path) -> Run:
    """Opens an existing run, with its config, result, metrics and network.

    Raises:
        ConfigError: If it is the folder of a sweep.
        RunFolderError: If there is no such folder, or its config is missing or damaged.
    """
    from era_cnn.folders.stored import is_portable, run_folder

    prefer_arithmetic(is_portable(run_folder(Path(path))))
    _import_torch()
    from era_cnn.use.network import Run

    return Run(path)


def replay(
    path: str | Path,
    *,
    epochs: int | None = None,
    listeners: Sequence[Listener] = (),
    data_root: str | Path | None = None,
) -> bool:
    """Trains a run again from its folder; returns whether the result is the same, bit for bit, and prints the answer.

    Args:
        path: The folder of the run; it is only read.
        epochs: Compare only the first of them; None for all.
        listeners: Those that added members to the state of the original run.
        data_root: Where the data is now, if it was moved.

    Raises:
        EraCnnError: If it can't be repeated.
    """
    from era_cnn.folders.stored import is_portable, run_folder

    _import_torch(portable=is_portable(run_folder(Path(path))))
    _check_listeners(listeners)
    from era_cnn.runs.replay import replay as replay_run

    root = None if data_root is None else str(data_root)
    command = ["era_cnn.replay", str(path)]
    return replay_run(Path(path), command, epochs=epochs, data_root=root, listeners=listeners) == 0


def _import_torch(*, portable: bool | None = None) -> None:
    """Imports torch with the way of waiting that a run wants; the environment is then as it was.

    Portable arithmetic lasts for the rest of the process, and so do its environment variables, which libraries read
    late. With None, either will do.
    """
    if portable is not None:
        choose_arithmetic(portable)
    before = dict(os.environ)
    spin_briefly()
    import torch  # noqa: F401 - OpenMP reads the environment now

    if "GOMP_SPINCOUNT" not in before:
        os.environ.pop("GOMP_SPINCOUNT", None)


def _checked(config: RunConfig) -> RunConfig:
    """The config, validated again: `model_copy(update=…)` validates nothing.

    Raises:
        ConfigError: If it is wrong; lists every problem.
    """
    from era_cnn.config.parsing import parse

    return parse(_plain(config))


def _plain(value: object) -> object:
    """The values of a config, those of unknown keys among them, which `model_dump` leaves out."""
    values = vars(value) if isinstance(value, BaseModel) else value
    return {key: _plain(each) for key, each in values.items()} if isinstance(values, dict) else values


def _refuse_config_dir(config_dir: str | Path | None) -> None:
    if config_dir is not None:
        raise ConfigError([problem("config_dir", "go with overrides", str(config_dir), "Give it to compose.")])


def _check_listeners(listeners: Sequence[Listener]) -> None:
    from era_cnn.training.listeners import Listener

    if not isinstance(listeners, Sequence):
        raise ConfigError([problem("listeners", "be a list", listeners, "Put it into brackets.")])
    for each in listeners:
        if not isinstance(each, Listener):
            raise ConfigError([problem("listeners", "hold objects of era_cnn.Listener", each, "Subclass it.")])


def _words(overrides: Sequence[str], config_dir: str | Path | None) -> Words:
    from era_cnn.compose.words import Words

    are_listed = overrides is None or (isinstance(overrides, Sequence) and not isinstance(overrides, str))
    if not are_listed or not all(isinstance(each, str) for each in overrides or ()):
        raise ConfigError([problem("overrides", "be a list of strings", overrides, "Put it into brackets.")])
    current_folder()  # fails at once if it was removed
    own_folder = None if config_dir is None else expanded(str(config_dir))
    if own_folder is not None and not os.path.isdir(own_folder):
        raise ConfigError([problem("config_dir", "be a folder", own_folder, "Create it.")])
    return Words(list(overrides or ()), config_dir=own_folder)
