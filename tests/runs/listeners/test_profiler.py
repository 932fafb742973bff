from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from era_cnn.folders.result import Result
from era_cnn.runs.listeners import profiler
from tests.runs.test_run import SMALL, run_in

STEPS = ("trainer.batch_size=32", "trainer.limit_train_images=512", "trainer.limit_epochs=1")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A run of 16 steps with a profile, and its folder."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    return run_in(folder, *SMALL[:-2], "trainer.limit_test_images=100", *STEPS, "trainer.profile=true"), folder


def test_the_profile_holds_a_few_steps(watched: tuple[Result, Path]) -> None:
    _, folder = watched
    table = (folder / "profile.txt").read_text(encoding="utf-8")
    assert table.startswith("Steps 6 to 10 of epoch 1 on cpu, sorted by their own time.\n---")
    events = json.loads(gzip.decompress((folder / "profile.json.gz").read_bytes()))["traceEvents"]
    names = [event["name"] for event in events]
    assert names.count("aten::cross_entropy_loss") == profiler.NUM_STEPS
    assert (folder / "profile.json.gz").stat().st_size < 2**20
    assert not list(folder.glob("*.partial"))


def test_a_profile_changes_no_bit_and_no_digest(watched: tuple[Result, Path], tmp_path: Path) -> None:
    plain = run_in(tmp_path / "run", *SMALL[:-2], "trainer.limit_test_images=100", *STEPS)
    assert plain.weights_sha256 == watched[0].weights_sha256
    assert plain.config_sha256 == watched[0].config_sha256
    assert not list((tmp_path / "run").glob("profile.*"))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (224, "Steps 6 to 7 of epoch 1"),
        (160, "Steps 2 to 5 of epoch 2"),
        (32, "must have two steps of an epoch after 5 others, got 3 steps. Train on more images, or for more epochs."),
    ],
)
def test_a_profile_stays_within_an_epoch(images: int, expected: str, tmp_path: Path, capsys) -> None:
    overrides = ("trainer.batch_size=32", f"trainer.limit_train_images={images}", "trainer.limit_epochs=3")
    run_in(tmp_path / "run", *SMALL[:-2], "trainer.limit_test_images=100", *overrides, "trainer.profile=true")
    captured = capsys.readouterr()
    assert expected in captured.out + captured.err
    assert (tmp_path / "run" / "profile.json.gz").exists() == (images > 32)


def test_the_quick_check_is_long_enough_for_a_profile(tmp_path: Path) -> None:
    """The documentation says to combine the two."""
    overrides = ("data=digits", "threads=1", "trainer=smoke", "trainer.profile=true")
    run_in(tmp_path / "run", *overrides, "trainer.limit_test_images=100")
    assert (tmp_path / "run" / "profile.txt").read_text(encoding="utf-8").startswith("Steps 6 to 8 of epoch 1")


@pytest.mark.slow
def test_a_trace_that_is_too_large_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(profiler, "MOST_BYTES", 10_000)
    run_in(tmp_path / "run", *SMALL[:-2], "trainer.limit_test_images=100", *STEPS, "trainer.profile=true")
    assert "The trace of the profile must have at most 10,000 bytes, got " in capsys.readouterr().err
    assert (tmp_path / "run" / "profile.txt").exists()
    assert not (tmp_path / "run" / "profile.json.gz").exists()
