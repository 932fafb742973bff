from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.data.arrays import Arrays
from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.checkpoints import CheckpointFolder
from era_cnn.folders.claims import claim
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import StoredConfig
from era_cnn.runs.listeners.console import Console
from era_cnn.runs.parts import read_data, settled
from era_cnn.runs.process import pick_device
from era_cnn.runs.run import run
from era_cnn.runs.stopping import Interrupted, StopRequest
from era_cnn.training.checkpoint import Checkpoint
from tests.conftest import config_of
from tests.helpers import slow_but_first
from tests.process import Command

SMALL = [
    "data=digits", "trainer=smoke", "threads=1", "trainer.limit_epochs=3", "trainer.batch_size=32",
    "trainer.limit_train_images=100", "trainer.limit_test_images=100",
]  # fmt: skip
STEPS = 4  # in an epoch
RUN_FILES = {
    "config.yaml",
    "fingerprints.jsonl",
    "metrics.csv",
    "steps.csv",
    "provenance.json",
    "summary.txt",
    "checkpoints",
}


class StopAt(StopRequest):
    """Asks to stop when it is looked at for the n-th time: after a step, or within an evaluation."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted(signal.SIGTERM)


def carry_on(folder: Path, stop: StopRequest | None = None, *overrides: str) -> None:
    config = settled(config_of(*SMALL, *overrides), pick_device("auto"))  # as the folder holds it
    stored = StoredConfig(config, digest(config))
    run(stored, RunFolder(folder), Console(is_terminal=False), stop or StopRequest())


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]], dict[str, Any]]:
    """All that a run leaves and that must not depend on interruptions: result, metrics, the last checkpoint."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for key in ("seconds", "images_per_second"):
        del result[key]
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    content = CheckpointFolder(folder / "checkpoints").newest()
    assert content is not None
    last = Checkpoint.from_bytes(content.content, torch.device("cpu"))
    with (folder / "steps.csv").open(encoding="utf-8") as file:
        rows += csv.DictReader(file)
    states = last.state["optimizer"]["state"]
    moments = {f"{i}.{name}": value for i, state in states.items() for name, value in state.items()}
    return result, rows, {**last.state["network"], **moments}


def assert_same(one: Path, other: Path) -> None:
    (result, rows, tensors), (other_result, other_rows, other_tensors) = outcome(one), outcome(other)
    assert result == other_result
    assert rows == other_rows
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = claim(tmp_path_factory.mktemp("unbroken") / "run").path
    carry_on(folder)
    return folder


# The first look is before the training; an epoch then has a look after each step and one in its evaluation.
@pytest.mark.parametrize("looks", [1, 2, 1 + STEPS, 2 + STEPS, 3 + STEPS, 3 * (STEPS + 1), 1 + 3 * (STEPS + 1)])
def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_bits(looks: int, unbroken: Path, tmp_path: Path) -> None:
    folder = claim(tmp_path / "run").path
    with pytest.raises(Interrupted):
        carry_on(folder, StopAt(looks))
    assert not (folder / "result.json").exists()
    carry_on(folder)
    assert_same(folder, unbroken)


def test_a_run_that_stops_after_every_step_gets_there(unbroken: Path, tmp_path: Path) -> None:
    folder = claim(tmp_path / "run").path
    for _ in range(3 * STEPS + 1):
        with pytest.raises(Interrupted):
            carry_on(folder, StopAt(2))
    carry_on(folder)
    assert_same(folder, unbroken)
    origin = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert len(origin["resumed"]) == 3 * STEPS + 1


RECIPES = {
    "plateau": ("scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9", "scheduler.threshold_mode=abs",
                "trainer.watch=train_loss"),
    "one_cycle": ("scheduler=one_cycle", "scheduler.base_momentum=0.8", "scheduler.max_momentum=0.95"),
    "early stopping": ("data.val_size=50", "trainer.early_stopping.patience=1", "trainer.early_stopping.min_delta=9"),
    "average": ("trainer.ema_decay=0.5", "trainer.l1=1e-4", "trainer.clip_grad_norm=0.5"),
    "unaugmented last epoch": ("augmentation=[affine,mixup]", "trainer.unaugmented_epochs=1"),
    "watched test set": ("data.val_size=50", "trainer.watch=test_loss", "scheduler=plateau", "scheduler.patience=0"),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but_first(RECIPES))
def test_a_stateful_recipe_goes_on_to_the_same_bits_and_is_replayed(name: str, command, tmp_path: Path) -> None:
    """Stopped within epochs and within evaluations, each time a little later."""
    carry_on(claim(tmp_path / "unbroken").path, None, *RECIPES[name])
    folder = claim(tmp_path / "run").path
    for looks in range(3, 12):
        with suppress(Interrupted):
            carry_on(folder, StopAt(looks), *RECIPES[name])
            break
    assert looks >= 5
    assert_same(folder, tmp_path / "unbroken")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    watched = {"plateau": "train_loss", "early stopping": "val_loss", "watched test set": "test_loss"}
    assert result["watched"] == watched.get(name)
    assert result["epochs"] == (2 if name == "early stopping" else 3)
    assert bool(result["end_reason"]) == (name == "early stopping")
    assert bool(result["ema_test_accuracy"]) == (name == "average")
    code, out, err = command("replay", "run")
    assert (code, err) == (0, "")
    assert f"Equal, bit for bit: all {result['epochs']} epochs and the result" in out


def test_how_often_it_is_saved_changes_nothing(unbroken: Path, tmp_path: Path) -> None:
    often, never = claim(tmp_path / "often").path, claim(tmp_path / "never").path
    carry_on(often, None, "trainer.checkpoint_every_seconds=1e-9")
    carry_on(never, None, "trainer.checkpoint_every_seconds=null")
    assert_same(often, unbroken)
    assert_same(never, unbroken)


def checkpoints_of(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("epoch-*"))


def test_the_last_two_and_the_best_are_kept(unbroken: Path) -> None:
    assert [path.name.split("_")[0:2] for path in checkpoints_of(unbroken)] == [
        ["epoch-00003", "step-0000000"],
        ["epoch-00004", "step-0000000"],
    ]
    result = json.loads((unbroken / "result.json").read_text(encoding="utf-8"))
    (best,) = (unbroken / "checkpoints").glob("best_*")
    assert best.name.startswith(f"best_epoch-{result['best_test_epoch']:05d}_")
    assert len(list((unbroken / "checkpoints").iterdir())) == 3


def interrupted(folder: Path) -> Path:
    claimed = claim(folder).path
    with pytest.raises(Interrupted):
        carry_on(claimed, StopAt(2 + 2 * (STEPS + 1)))  # in epoch 3
    return claimed


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = interrupted(tmp_path / "run")
    newest = checkpoints_of(folder)[-1]
    damage(newest)
    carry_on(folder)
    assert f"{newest} must have the SHA-256 {newest.stem[-64:]}, got " in capsys.readouterr().err
    assert_same(folder, unbroken)


def test_without_a_whole_checkpoint_nothing_is_touched(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    for path in checkpoints_of(folder):
        truncate(path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match="must hold a whole checkpoint, got 2 damaged"):
        carry_on(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_another_config_is_refused(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    with pytest.raises(RunFolderError, match="The config must be what the run began with, SHA-256"):
        carry_on(folder, None, "optimizer.lr=0.02")


def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted(tmp_path / "run")

    def other_data(config: RunConfig) -> Arrays:
        arrays = read_data(config)
        return replace(arrays, test_labels=1 - arrays.test_labels)

    monkeypatch.setattr("era_cnn.runs.run.read_data", other_data)
    with pytest.raises(RunFolderError, match="The data must be what the run began with, SHA-256"):
        carry_on(folder)


def test_a_failing_write_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    store.save(b"one", epoch=1, steps_done=0)
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def fail(*args: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, name, fail)
            with pytest.raises(StorageError, match="must be written, got: No space left on device"):
                store.save(b"two", epoch=2, steps_done=0)
        found = store.newest()
        assert found is not None
        assert found.content in (b"one", b"two")


def test_the_order_of_writing_is_file_rename_folder_then_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = CheckpointFolder(tmp_path / "checkpoints"), []
    for epoch in (1, 2):
        store.save(b"x", epoch=epoch, steps_done=0)
    fsync, replace, unlink = os.fsync, os.replace, Path.unlink
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths))[1])
    monkeypatch.setattr(Path, "unlink", lambda path: (calls.append("unlink"), unlink(path))[1])
    store.save(b"x", epoch=3, steps_done=0)
    assert calls == ["fsync", "rename", "fsync", "unlink"]


def test_the_newest_is_that_of_the_largest_number(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    for epoch in (99_999, 100_000, 100_001):
        store.save(str(epoch).encode(), epoch=epoch, steps_done=0)
    found = store.newest()
    assert found is not None
    assert found.content == b"100001"
    assert len(checkpoints_of(tmp_path)) == 2


@pytest.mark.parametrize("left", ["best_*", "nothing"])
def test_checkpoints_that_are_gone_are_not_made_up_for_in_silence(
    left: str, unbroken: Path, command, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "result.json").unlink()
    for path in (folder / "checkpoints").iterdir():
        if not path.match(left):
            path.unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = command("resume", "run")
    assert code == 4
    assert "checkpoints must hold a whole checkpoint, since fingerprints.jsonl has epochs, got none. Start" in err
    assert {path: path.read_bytes() for path in before} == before


def test_a_config_that_was_changed_before_the_first_checkpoint_is_refused(
    unbroken: Path, command, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "provenance.json"):
        text = (unbroken / name).read_text(encoding="utf-8").replace("lr: 0.01", "lr: 0.03")
        (tmp_path / "run" / name).write_text(text, encoding="utf-8")
    code, _, err = command("resume", "run")
    assert code == 4
    assert "The config must be what the run began with, SHA-256 " in err
    assert not (tmp_path / "run" / "status.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"a": '])
def test_a_damaged_result_is_none(text: str, unbroken: Path, command, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "result.json").write_text(text, encoding="utf-8")
    code, out, err = command("resume", "run")
    assert (code, out) == (4, "")
    assert "result.json must hold " in err
    assert "Remove it, and resume the run." in err
    (folder / "result.json").unlink()
    assert command("resume", "run")[0] == 0
    assert_same(folder, unbroken)


def test_what_is_no_run_is_left_as_it_is(command, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    assert command("resume", "foreign")[0] == 4
    assert list((tmp_path / "foreign").iterdir()) == []
    (tmp_path / "foreign" / "multirun.yaml").touch()
    code, _, err = command("resume", "foreign")
    assert code == 4
    assert err == (
        f"{tmp_path / 'foreign' / 'multirun.yaml'} must hold what the run wrote, got: hydra: Field required. Start a new run.\n"
    )
    code, _, err = command("replay", "foreign")
    assert code == 2
    assert "RUN must be the folder of a run, not of a sweep, got 'foreign'. Give the folder of one of its jobs." in err
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["multirun.yaml"]


def test_a_folder_in_use_is_left_alone(command, tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with RunFolder(folder).locked():
        code, _, err = command("resume", "run")
    assert code == 4
    assert "run must be free, got one in use by another process." in err
    assert {path: path.read_bytes() for path in before} == before


def test_a_completed_run_says_so(command, tmp_path: Path) -> None:
    command(*SMALL, "hydra.run.dir=run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    assert command("resume", "run") == (0, "Nothing to do: the run is complete. Run folder: run\n", "")
    assert (tmp_path / "run" / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "RUN must be the folder of a run, got 'run', which has no config.yaml. Give the path"),
        (
            "a: [",
            "config.yaml must hold what the run wrote, got: config.yaml must be valid YAML, got: while parsing",
        ),
        ("[" * 3000, "config.yaml must be nested at most 20 levels deep"),
        ("a: &a [1]\nb: [" + "*a, " * 9000 + "]", "config.yaml must have at most 10,000 entries"),
        ("a: 1", "config.yaml must hold what the run wrote, got: name must be given"),
    ],
)
def test_a_folder_without_a_config_cannot_go_on(text: str | None, message: str, command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    if text is not None:
        (tmp_path / "run" / "config.yaml").write_text(text, encoding="utf-8")
    code, _, err = command("resume", "run")
    assert code == 4
    assert message in err


def test_what_is_no_folder_cannot_be_resumed(command) -> None:
    assert command("resume", "nowhere")[0] == 4


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_goes_on_to_the_same_bits(command, tmp_path: Path) -> None:
    """Real processes and SIGKILL, at instants that nobody chose."""
    once = [word for word in SMALL if not word.startswith(("threads", "trainer.limit_epochs"))]
    words = [*once, "threads=2", "trainer.limit_epochs=6", "trainer.checkpoint_every_seconds=0.05"]
    slow = (
        "import time\nfrom era_cnn.training.objective import Objective\n_backward = Objective.backward\n"
        "def backward(*arguments):\n    time.sleep(0.03)\n    return _backward(*arguments)\n"
        "Objective.backward = backward\n"
    )
    assert command(*words, "hydra.run.dir=unbroken")[0] == 0
    start, kills = [*words, "hydra.run.dir=killed"], 0
    while not (tmp_path / "killed" / "result.json").exists():
        process = Command(*start, before=slow)
        for line in process.stdout:
            if kills < 2 and line.startswith(("Test set", "Resuming")):
                time.sleep(random.uniform(0.0, 0.2))
                process.kill()
                kills += 1
        process.communicate()
        start = ["resume", "killed"]
    assert kills == 2
    assert_same(tmp_path / "killed", tmp_path / "unbroken")


@pytest.mark.parametrize("files", [["config.yaml", "status.json"], ["config.yaml"]])
def test_a_run_that_was_killed_before_its_first_step_goes_on(
    files: list[str], unbroken: Path, command, tmp_path: Path
) -> None:
    """The config is the first file of a run."""
    (tmp_path / "run").mkdir()
    for name in files:
        shutil.copy(unbroken / name, tmp_path / "run" / name)
    assert command("resume", "run")[0] == 0
    assert_same(tmp_path / "run", unbroken)


def test_a_change_since_the_run_began_is_said(unbroken: Path, command, tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    path = folder / "provenance.json"
    origin = json.loads(path.read_text(encoding="utf-8"))
    origin["packages"]["torch"], origin["machine"]["processor"] = "1.0", "abacus"
    path.write_text(json.dumps(origin), encoding="utf-8")
    code, out, _ = command("resume", "run")
    assert code == 0
    assert "This differs from the original run, so results may not match bit for bit: processor abacus → " in out
    assert f"torch 1.0 → {torch.__version__.split('+')[0]}" in out


def test_what_was_damaged_is_set_aside_and_does_not_count_as_kept(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    paths = [store.save(bytes([epoch]), epoch=epoch, steps_done=0) for epoch in (1, 2)]
    best = store.save_best(b"best", epoch=1)
    for path in (paths[1], best):
        path.write_bytes(b"damaged")
    found = store.newest()
    assert found is not None
    assert found.content == bytes([1])
    assert list(found.damaged) == [paths[1], best]
    assert all(said.startswith(f"{path} must have the SHA-256 ") for path, said in found.damaged.items())
    store.set_aside(found.damaged)
    last = store.save(b"again", epoch=2, steps_done=0)
    names = {path.name for path in store.path.iterdir()}
    assert names == {paths[0].name, last.name, f"{paths[1].name}.damaged", f"{best.name}.damaged"}


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    store.path.mkdir()
    (store.path / "epoch-00001_step-0000001_ab.pt.partial").write_bytes(b"half")
    last = store.save(b"x", epoch=2, steps_done=0)
    assert list(store.path.iterdir()) == [last]


def test_a_checkpoint_that_reads_back_differently_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    first = store.save(b"one", epoch=1, steps_done=0)
    monkeypatch.setattr(
        "era_cnn.folders.checkpoints.write_atomically", lambda path, content: path.write_bytes(b"other")
    )
    with pytest.raises(StorageError, match="It was written a moment ago. Check the disk."):
        store.save(b"two", epoch=2, steps_done=0)
    assert list(store.path.iterdir()) == [first]
