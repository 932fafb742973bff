"""The user's own images, from the command line to the run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import era_cnn
from era_cnn.compose.words import Words
from era_cnn.config import description
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.data.decoding import Decoder
from era_cnn.data.own import ImageFolder
from era_cnn.errors import ConfigError, DataError
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from tests.conftest import CONF_DIR
from tests.data.folders import TWO_SPLITS, make_folder, save

SHORT = [
    "data=image_folder", "data.root=own", "trainer=smoke", "threads=1", "trainer.batch_size=4",
    "+model.layers.gap.projection=conv", "target.max_params=null",
]  # fmt: skip
RUN = [*SHORT, "data.size=[28,28]", "trainer.limit_epochs=1", "hydra.run.dir=run"]
WITH_VAL = {**TWO_SPLITS, "val/cat": 2, "val/dog": 2}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_folder(tmp_path / "own", WITH_VAL)


def composed(*overrides: str) -> RunConfig:
    return era_cnn.compose([*SHORT, *overrides])


def test_what_the_files_hold_is_written_into_the_config() -> None:
    data: Any = composed().data
    assert data.contents.model_dump() == {
        "shape": [3, 8, 6], "class_names": ["cat", "dog"], "train_size": 10, "test_size": 5, "val_size": 4,
    }  # fmt: skip
    assert len(data.mean) == len(data.std) == 3
    assert all(0.4 < value < 0.6 for value in data.mean)


def test_a_given_mean_is_kept() -> None:
    assert composed("data.mean=[0.1,0.2,0.3]").data.mean == [0.1, 0.2, 0.3]


def test_the_digest_of_a_config_covers_what_was_found(own: Path) -> None:
    before = digest(composed())
    assert digest(composed("data.background=255")) == before
    shutil.copy(own / "train/cat/0.png", own / "train/cat/9.png")
    assert digest(composed()) != before


def test_nothing_is_decoded_before_all_else_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "try_to_decode", lambda self, path: pytest.fail("it must not be decoded"))
    for wrong in ("optimizer.lr=-1", "data.val_size=-1", "augmentation=affine augmentation.affine.scale=[2,1]"):
        with pytest.raises(ConfigError):
            composed(*wrong.split(" "))


def test_a_run_and_its_resumption_and_replay_with_validation_images(command, tmp_path: Path) -> None:
    code, out, _ = command(*RUN)
    assert code == 0
    assert "image_folder (10 training + 4 validation + 5 test images)" in out
    assert "val_accuracy" in (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()[0]
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["data_sha256"] == json.loads((tmp_path / "run" / "result.json").read_text())["data_sha256"]
    assert command("replay", "run")[0] == 0


def test_a_run_can_be_read_without_its_images(command, own: Path) -> None:
    assert command(*RUN)[0] == 0
    shutil.rmtree(own)
    assert command("compare", "run")[0] == 0
    run = era_cnn.load("run")
    assert run.config.info.class_names == ("cat", "dog")
    run.network()
    code, _, err = command("replay", "run")
    assert code == 3
    assert "must be a folder that can be read, got: No such file" in err


@pytest.mark.parametrize("key", ["contents", "mean", "std"])
def test_a_stored_config_never_lets_files_be_read(
    key: str, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*RUN)[0] == 0
    path = tmp_path / "run" / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(
        yaml.safe_dump({**values, "data": {**values["data"], key: None}}, sort_keys=False), encoding="utf-8"
    )
    monkeypatch.setattr(ImageFolder, "read", lambda self: pytest.fail("it must not be read"))
    for verb in ("replay", "resume"):
        code, _, err = command(verb, "run")
        assert code == 4
        assert "data must have its contents, mean and std, as in a composed config, got null. Restore them" in err


def test_the_images_may_move(command, own: Path) -> None:
    assert command(*RUN)[0] == 0
    own.rename("elsewhere")
    assert command("replay", "run", "--data-root", "elsewhere")[0] == 0


@pytest.mark.parametrize("is_pixel", [True, False])
def test_other_images_are_refused_when_a_run_is_replayed(is_pixel: bool, command, own: Path) -> None:
    assert command(*RUN)[0] == 0
    save(own / ("train/cat/0.png" if is_pixel else "train/cat/new.png"), np.zeros((8, 6, 3)))
    code, _, err = command("replay", "run")
    assert code in (1, 3)
    assert ("data" in err) or ("must match its description: training images of shape (10, 3, 28, 28)" in err)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("data.val_size=2", "data.val_size must be 0: image_folder has 4 validation images of its own, got 2."),
        ("data.mean=[0.1]", "data.mean must have 3 values, one for each channel of image_folder, got [0.1]."),
        ("data.size=[28]", "data.size must have at least 2 entries, got [28]. Give height and width to which images are"),
        ("data.size=[0,28]", "data.size.0 must be at least 1, got 0."),
        ("data.size=28", "data.size must be a list, got 28."),
        ("data.channels=2", "data.channels must be one of 1, 3, got 2."),
        ("data.test_share=1", "data.test_share must be less than 1, got 1."),
        ("data.test_share=0.5", "data.test_share must be null, since "),
        ("data.split_seed=-1", "data.split_seed must be at least 0, got -1."),
        ("data.empty_classes=allow", "data.empty_classes must be one of refuse, keep, ignore, got 'allow'."),
        ("data.damaged=ignore", "data.damaged must be one of error, skip, got 'ignore'."),
        ("data.background=256", "data.background must be at most 255, got 256."),
        ("data.max_pixels=0", "data.max_pixels must be at least 1, got 0."),
        ("data.contents=3", "data.contents must be a mapping, got 3."),
        ("data.contents={shape:[1,2],class_names:[a,b],train_size:1,test_size:1}", "data.contents.shape must have at least 3"),
    ],
)  # fmt: skip
def test_each_rule_has_its_message(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(*overrides.split(" "))
    assert caught.value.problems[0].startswith(message)
    assert len(caught.value.problems) == 1


def test_sizes_that_differ_and_a_missing_root_are_config_errors(command, own: Path) -> None:
    save(own / "train/cat/0.png", np.zeros((9, 9, 3)))
    code, _, err = command(*SHORT)
    assert (code, err.count("\n")) == (2, 2)  # with the line that says what is decoded
    assert "data.size must be given, since the images in" in err
    code, _, err = command("data=image_folder", "trainer=smoke")
    assert (code, "data.root must be given, got nothing" in err) == (2, True)


def test_an_image_without_contrast_has_no_deviation(own: Path) -> None:
    for path in own.rglob("*.png"):
        save(path, np.zeros((8, 6, 3)))
    with pytest.raises(ConfigError, match=r"data.std.0 must be greater than 0, got 0.0"):
        composed()


def test_the_jobs_of_a_sweep_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from era_cnn.compose.composition import compose_sweep
    from tests.helpers import plan_sweep

    calls = []
    original = description.read_from
    monkeypatch.setattr(description, "read_from", lambda entry, name: (calls.append(name), original(entry, name))[1])
    words = Words([*SHORT, "seed=1,2,3", "data.channels=1,3"])
    planned = plan_sweep(words, compose_sweep(words))
    assert [job.config.info.shape[0] for job in planned] == [1, 3] * 3
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["image_folder", "npz"])
def test_the_group_states_every_field_with_its_default(name: str) -> None:
    values = yaml.safe_load((CONF_DIR / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    fields = description.DATASETS.section(name).model_fields
    assert values.keys() == fields.keys()
    defaults = {name: field.default for name, field in fields.items() if not field.is_required()}
    assert {name: values[name] for name in defaults} == defaults


def data(command, *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = command("data", "image_folder", "data.root=own", *words, "--json")
    return code, json.loads(out)


def test_the_verb_reports_what_a_folder_holds(command, own: Path) -> None:
    (own / "train" / "cat" / "notes.txt").touch()
    code, report = data(command)
    assert code == 0
    assert report["shape"] == [3, 8, 6]
    assert report["counts"] == {
        "training": {"cat": 6, "dog": 4}, "validation": {"cat": 2, "dog": 2}, "test": {"cat": 2, "dog": 3},
    }  # fmt: skip
    assert report["folders"] == {"train": "train", "val": "val", "test": "test"}
    assert report["ignored"] == ["train/cat/notes.txt"]
    assert report["sizes"] == {"8×6": 19}
    assert Path(report["cache"]).is_dir()
    assert (report["damaged"], report["in_train_and_test"], report["conflicting"]) == ({}, [], [])


def test_the_verb_finds_images_that_occur_twice_by_their_pixels(command, own: Path) -> None:
    shutil.copy(own / "train/cat/0.png", own / "train/cat/again.png")
    pixels = np.asarray(Image.open(own / "train/cat/1.png"))
    save(own / "test/cat/other-name.bmp", pixels)
    save(own / "train/dog/wrong.tif", pixels)
    code, report = data(command)
    assert code == 0
    assert report["duplicates"] == {"training": 2, "test": 0}
    group = ["train/cat/1.png", "train/dog/wrong.tif", "test/cat/other-name.bmp"]
    assert report["in_train_and_test"] == report["conflicting"] == [group]
    out = command("data", "image_folder", "data.root=own")[1]
    assert "Images that are in the test images and in others: 1\n  " + " = ".join(group) in out
    assert "Equal images with different labels: 1" in out


def test_the_verb_reports_damage_with_code_3(command, own: Path) -> None:
    (own / "train/dog/0.png").write_bytes(b"<html>")
    code, report = data(command)
    assert (code, list(report["damaged"])) == (3, ["train/dog/0.png"])
    assert data(command, "data.damaged=skip")[0] == 0
    code, out, _ = command("data", "image_folder", "data.root=own")
    assert code == 3
    assert "Damaged: 1\n  train/dog/0.png: no image in one of the formats" in out
    with pytest.raises(DataError):
        composed()


def test_the_verb_verifies_contents(command, own: Path) -> None:
    import os

    assert data(command, "--verify") == data(command)
    path = own / "test/dog/1.png"
    status, other = path.stat(), save(own.parent / "o.png", np.zeros((8, 6, 3))).read_bytes()
    path.write_bytes(other.ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert data(command)[0] == 0
    code, report = data(command, "--verify")
    assert (code, report["changed"]) == (3, ["test/dog/1.png"])
    assert data(command, "--verify")[0] == 0


def test_the_verb_does_not_depend_on_an_experiment(command) -> None:
    assert data(command, "data.size=[2,3]", "optimizer.lr=-1")[1]["shape"] == [3, 2, 3]


@pytest.mark.parametrize("words", [["data.root=nowhere"], ["data.root=own/train"]])
def test_the_verb_says_what_is_wrong_with_a_root(words: list[str], command) -> None:
    code, _, err = command("data", "image_folder", *words)
    assert (code, err.count("\n")) == (3, 1)


def test_a_folder_that_lost_its_config_is_not_needed(command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    stored = read_config(RunFolder(tmp_path / "run"))
    assert stored.sha256 == digest(composed("data.size=[28,28]", "trainer.limit_epochs=1", "device=cpu"))
