"""Folders that can't be used: each command says what is wrong with which folder, and reads nothing outside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import era_cnn
from era_cnn.use.network import Run

VERBS = {"eval": (), "predict": ("7.png",), "explain": ("7.png",)}


def no_config(path: Path) -> None:
    (path / "config.yaml").unlink()


def other_network(path: Path) -> None:
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("out_channels: 10", "out_channels: 11", 1), encoding="utf-8")


def unknown_block(path: Path) -> None:
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("block: conv", "block: nonsense", 1), encoding="utf-8")


def no_checkpoints(path: Path) -> None:
    shutil.rmtree(path / "checkpoints")


def damaged_checkpoints(path: Path) -> None:
    for each in (path / "checkpoints").iterdir():
        each.write_bytes(b"noise")


def other_content(path: Path) -> None:
    """A checkpoint whose name is right, but which holds something else."""
    from hashlib import sha256

    for each in (path / "checkpoints").iterdir():
        each.unlink()
    name = f"epoch-00009_step-0000000_{sha256(b'noise').hexdigest()}.pt"
    (path / "checkpoints" / name).write_bytes(b"noise")


def checkpoints_elsewhere(path: Path) -> None:
    (path / "checkpoints").rename(path.parent / "elsewhere")
    (path / "checkpoints").symlink_to(path.parent / "elsewhere")


def config_elsewhere(path: Path) -> None:
    (path / "config.yaml").rename(path.parent / "config.yaml")
    (path / "config.yaml").symlink_to(path.parent / "config.yaml")


HARMS = (
    no_config, other_network, unknown_block, no_checkpoints, damaged_checkpoints, other_content, checkpoints_elsewhere,
    config_elsewhere, shutil.rmtree,
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_damaged_folder_is_refused_with_its_path(
    verb: str, harm: Callable[[Path], None], run: Run, pngs: Path, command, tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(run.path, path)
    shutil.copy(pngs / "007.png", "7.png")
    harm(path)
    before = {each for each in tmp_path.rglob("*") if "checkpoints" not in each.parts}
    code, out, err = command(verb, "copy", *VERBS[verb])
    assert (code, out) == (4, "")
    assert "copy" in err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert {each for each in tmp_path.rglob("*") if "checkpoints" not in each.parts} == before


@pytest.mark.parametrize("verb", [*VERBS, "export", "report", "resume", "replay"])
def test_a_folder_that_holds_no_run_is_called_that(verb: str, command, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "passwd").touch()
    code, out, err = command(verb, "foreign", *VERBS.get(verb, ()))
    assert (code, out) == (4, "")
    assert err.startswith("RUN must be the folder of a run, got '")
    assert "foreign', which has no config.yaml. Give the path that the run printed at its end; era-cnn list" in err
    assert [each.name for each in (tmp_path / "foreign").iterdir()] == ["passwd"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_sweep_is_refused(verb: str, command, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    code, _, err = command(verb, "sweep", *VERBS[verb])
    assert code == 2
    assert "RUN must be the folder of a run, not of a sweep, got 'sweep'." in err


@pytest.mark.parametrize("verb", VERBS)
def test_averaged_weights_are_refused_where_there_are_none(
    verb: str, colour_run: tuple[Run, Path], command, tmp_path: Path
) -> None:
    code, _, err = command(verb, str(colour_run[0].path), *VERBS[verb], "--checkpoint", "ema")
    assert code == 2
    assert err.startswith("--checkpoint must be last or best: the run kept no averaged weights, got 'ema'. Train one")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_version_of_a_folder_can_be_used(command) -> None:
    earlier = Path(__file__).parents[1] / "folders" / "schema_1" / "completed"
    code, _, err = command("eval", str(earlier))
    assert (code, err) == (0, "")
    found = era_cnn.load(earlier)
    assert found.result is not None
    assert found.evaluate().accuracy == pytest.approx(found.result["final_test_accuracy"], abs=0.01)
