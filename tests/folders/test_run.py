from __future__ import annotations

import csv
import itertools
import multiprocessing
import os
from pathlib import Path

import pytest
import yaml

from era_cnn.config.parsing import parse
from era_cnn.config.versions import SCHEMA, upgraded
from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.claims import claim
from era_cnn.folders.result import RESULT_KEYS
from era_cnn.folders.run import RunFolder
from era_cnn.training.history import EpochMetrics, Scores
from tests.conftest import config_of


def claim_many(wanted: Path, count: int, barrier, queue) -> None:
    barrier.wait()
    queue.put([str(claim(wanted).path) for _ in range(count)])


@pytest.mark.slow
def test_two_hundred_simultaneous_claims_give_two_hundred_folders(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=claim_many, args=(tmp_path / "day" / "run", 25, barrier, queue)) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    folders = [folder for _ in workers for folder in queue.get(timeout=60)]
    for worker in workers:
        worker.join()
    assert len(set(folders)) == len(folders) == 200
    assert all(Path(folder).is_dir() for folder in folders)


def test_the_first_claim_gets_the_name_and_the_next_a_number(tmp_path: Path) -> None:
    assert [claim(tmp_path / "a" / "run").path.name for _ in range(3)] == ["run", "run_2", "run_3"]


@pytest.mark.parametrize("place", ["file/run", "file/day/run"])
def test_a_place_where_nothing_can_be_created(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"must be a folder.*Choose another folder: hydra.run.dir=…"):
        claim(tmp_path / place)


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_folder_that_one_stands_in_is_never_claimed_nor_numbered(place: str, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="must be a new folder, got one that contains the current directory"):
        claim(Path(place))
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}_2"))


def test_giving_back_leaves_what_others_have(tmp_path: Path) -> None:
    first, second = claim(tmp_path / "outputs" / "day" / "run"), claim(tmp_path / "outputs" / "day" / "run")
    first.give_back()
    assert second.path.exists()
    second.give_back()
    assert (tmp_path / "outputs" / "day").exists()  # made by the first claim, which left it to the second


def test_giving_back_leaves_nothing_behind_and_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    claim(tmp_path / "mine" / "a" / "b" / "run").give_back()
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def claim_and_give_back(wanted: Path, count: int, barrier, queue) -> None:
    barrier.wait()
    for _ in range(count):
        claim(wanted).give_back()
    queue.put("done")


def test_claiming_while_others_give_back(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(4), context.Queue()
    arguments = (tmp_path / "day" / "run", 200, barrier, queue)
    workers = [context.Process(target=claim_and_give_back, args=arguments) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == ["done"] * 4
    for worker in workers:
        worker.join()


def record(epoch: int, *, with_val: bool, with_test: bool = True) -> EpochMetrics:
    evaluation = Scores(0.1, 0.95, 95, 100)
    return EpochMetrics(
        epoch,
        0.01,
        0.5,
        0.9,
        1.23456,
        evaluation if with_val else None,
        evaluation if with_test else None,
        {"order": f"{epoch}"},
    )


def test_metrics_are_a_row_an_epoch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_metrics([record(epoch, with_val=False) for epoch in (1, 2)], with_val=False)
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0]["seconds"] == "1.235"


def test_an_evaluation_that_was_not_made_stays_empty(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_metrics([record(1, with_val=True, with_test=False)], with_val=True)
    head, row = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert head == "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,test_loss,test_accuracy,seconds"
    assert row == "1,0.01,0.5,0.9,0.1,0.95,,,1.235"


def test_the_saved_config_is_the_config(tmp_path: Path) -> None:
    config = config_of("experiment=model_3")
    RunFolder(tmp_path).begin(config)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert next(iter(saved)) == "schema"
    assert saved["schema"] == SCHEMA
    assert parse(upgraded(saved)) == config
    assert list(saved["model"]["layers"]) == list(config.model.layers)


def test_fingerprints_are_a_line_an_epoch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_fingerprints([record(epoch, with_val=False) for epoch in (1, 2)])
    assert folder.read_fingerprints() == {1: {"order": "1"}, 2: {"order": "2"}}
    (tmp_path / "fingerprints.jsonl").write_text("[]\n", encoding="utf-8")
    with pytest.raises(
        RunFolderError, match=r"fingerprints.jsonl must hold what the run wrote, got: a line 1 that is not"
    ):
        folder.read_fingerprints()


RESULT = {
    **dict.fromkeys(RESULT_KEYS, 1),
    **dict.fromkeys(("weights_sha256", "config_sha256", "data_sha256"), "0" * 64),
    "experiment": "model",
    "target": {},
}


def test_the_result_is_the_last_file_and_says_that_a_run_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, renamed, replace = RunFolder(tmp_path), [], os.replace
    assert folder.state()["state"] == "not started"
    folder.begin(config_of())
    assert folder.state()["state"] == "running"
    monkeypatch.setattr(os, "replace", lambda old, new: (renamed.append(Path(new).name), replace(old, new))[1])
    folder.complete(RESULT)
    assert renamed == ["status.json", "result.json"]
    assert folder.state()["state"] == "completed"
    (tmp_path / "result.json").unlink()
    assert folder.state()["state"] == "interrupted"  # killed between the two


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_result_that_is_not_on_the_disk_for_good_is_none(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls, fsync = RunFolder(tmp_path), itertools.count(1), os.fsync
    folder.begin(config_of())

    def fail_once(descriptor: int) -> None:
        if next(calls) == count:
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(
        StorageError, match="must be written, got: Input/output error. Free some space, or check the disk."
    ):
        folder.complete(RESULT)
    assert not (tmp_path / "result.json").exists()
    assert next(calls) == count + 1


def test_a_lock_that_cannot_be_made_has_its_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunFolderError, match="file must be a folder that can be read, got: Not a directory"),
        RunFolder(tmp_path / "file").locked(),
    ):
        pass
