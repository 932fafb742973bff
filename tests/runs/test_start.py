"""How a command becomes a run: one path, short, and no folder where nothing was run."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import era_cnn
from era_cnn.cli import main
from era_cnn.compose.composition import Planned, compose, plan_run
from era_cnn.compose.words import Words
from era_cnn.errors import DataError, EraCnnError, StorageError
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from era_cnn.models.build import Network
from era_cnn.runs import carry_out as module
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.start import start

PACKAGE = Path(era_cnn.__file__).parent
SMALL = ["data=digits", "trainer=smoke", "threads=1", "trainer.limit_train_images=64", "trainer.limit_test_images=50"]

MOST_FRAMES = 7
"""main, the verb, start, carry_out, run, fit, the step."""


def begin(planned: Planned) -> int:
    """Starts what was planned, as the command does."""
    verbose = planned.verbose_loggers()
    return start(planned.config, Path(planned.folder), ["era-cnn"], hydra_files=planned.hydra_files, verbose=verbose)


def own_frames() -> list[str]:
    """The functions of the package that are under way, the outermost first."""
    frame: FrameType | None = sys._getframe(1)
    found = []
    while frame is not None:
        if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found[::-1]


def test_few_functions_lie_between_the_command_and_the_network() -> None:
    seen: list[list[str]] = []

    def look(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, Network) and module.training:
            seen.append(own_frames())

    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        assert main([*SMALL, "hydra.run.dir=run"]) == 0
    finally:
        handle.remove()
    assert seen, "the network was trained"
    longest = max(seen, key=len)
    assert longest[:4] == ["main", "train", "start", "carry_out"]
    assert len(longest) <= MOST_FRAMES, longest


def test_a_run_is_composed_and_validated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}

    def counted(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def count(*arguments: Any, **options: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, count)

    from era_cnn.compose import composition, hydra_door

    counted(hydra_door.Loader, "_load_configuration_impl")
    counted(composition, "parse")
    assert main([*SMALL]) == 0
    assert counts == {"_load_configuration_impl": 1, "parse": 1}


@pytest.mark.parametrize("error", [DataError("The data must be there, got none. Fetch it."), KeyboardInterrupt()])
def test_a_run_that_never_began_leaves_no_folder(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: object) -> None:
        assert (tmp_path / "a" / "run" / "config.yaml").exists()
        raise error

    monkeypatch.setattr(module, "run", fail)
    words = Words([*SMALL, "hydra.run.dir=a/run"])
    with pytest.raises(type(error)):
        begin(plan_run(words, compose(words)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_filled_is_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    words = Words([*SMALL, "hydra.run.dir=run"])
    planned = plan_run(words, compose(words))
    monkeypatch.setattr("era_cnn.folders.storage._new_file", full)
    with pytest.raises(StorageError, match="run/.hydra/config.yaml must be written, got: No space left on device"):
        begin(planned)
    assert list(tmp_path.iterdir()) == []


def test_hydra_verbose_lets_a_logger_say_more_for_one_run(tmp_path: Path) -> None:
    logger, levels = logging.getLogger("a.b"), []
    words = Words([*SMALL, "hydra.run.dir=run", "hydra.verbose=[a.b]"])
    planned = plan_run(words, compose(words))
    assert planned.verbose_loggers() == ("a.b",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run", lambda *arguments: levels.append(logger.level))
        assert begin(planned) == 0
    assert (levels, logger.level) == ([logging.DEBUG], logging.NOTSET)


@pytest.mark.parametrize(("value", "loggers"), [("true", ("",)), ("false", ()), ("x", ("x",)), ("[x,y]", ("x", "y"))])
def test_what_hydra_verbose_names(value: str, loggers: tuple[str, ...]) -> None:
    words = Words([*SMALL, f"hydra.verbose={value}"])
    assert plan_run(words, compose(words)).verbose_loggers() == loggers


@pytest.fixture
def planned_folder(tmp_path: Path) -> RunFolder:
    """A folder with all that a run begins from."""
    words = Words([*SMALL])
    planned = plan_run(words, compose(words))
    folder = RunFolder(tmp_path / "run")
    folder.plan(planned.config, planned.hydra_files(folder.path))
    return folder


def test_a_folder_is_all_that_a_run_needs(planned_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(planned_folder, ["words"]) == 0
    assert planned_folder.result() is not None
    assert planned_folder.read_json("provenance.json")["command"] == ["words"]
    capsys.readouterr()
    assert carry_out(RunFolder(planned_folder.path), ["again"]) == 0
    assert capsys.readouterr().out == "Nothing to do: the run is complete. Run folder: run\n"
    assert carry_out(RunFolder(planned_folder.path), ["again"], quiet=True) == 0
    assert capsys.readouterr().out == ""


def test_an_equal_run_may_be_taken_over(planned_folder: RunFolder) -> None:
    asked = []

    def take_over(folder: RunFolder, config: object) -> bool:
        asked.append((folder.path, config))
        return True

    assert carry_out(planned_folder, [], take_over=take_over) == 0
    assert asked == [(planned_folder.path, read_config(planned_folder).config)]
    assert not planned_folder.has_begun


def test_what_is_no_run_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(EraCnnError, match="must hold what the run wrote"):
        carry_out(RunFolder(tmp_path), [])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_used_by_two(planned_folder: RunFolder) -> None:
    with planned_folder.locked(), pytest.raises(EraCnnError, match="in use by another process"):
        carry_out(RunFolder(planned_folder.path), [])


def test_main_leaves_the_process_of_its_caller_alone() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert main([*SMALL, "hydra.run.dir=run"]) == 0
    assert main(["optimizer.lr=-1"]) == 2
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_hydra_folder_says_where_the_run_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert main([*SMALL, "hydra.run.dir=run"]) == 0
    text = (tmp_path / "run_2" / ".hydra" / "hydra.yaml").read_text(encoding="utf-8")
    assert f"output_dir: {tmp_path / 'run_2'}\n" in text
    assert json.loads((tmp_path / "run_2" / "status.json").read_text(encoding="utf-8"))["state"] == "completed"
