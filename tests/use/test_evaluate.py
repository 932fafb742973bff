"""`era-cnn eval` and `run.evaluate`: exactly what the run found, on every split, and on other data sets that fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from era_cnn.data.digits import read_digits
from era_cnn.errors import ConfigError
from era_cnn.training.history import Scores
from era_cnn.use.evaluate import _Shift, views_of
from era_cnn.use.evaluated import Evaluated
from era_cnn.use.network import Run, Trained
from tests.conftest import config_of
from tests.data.folders import save


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_last_weights_give_exactly_the_result_of_the_run(run: Run) -> None:
    before = files_of(run.path)
    found, stored = run.evaluate(), np.load(run.path / "predictions.npz")
    assert run.result is not None
    assert found.accuracy == run.result["final_test_accuracy"] > 0.8
    assert np.array_equal(found.logits, stored["logits"])
    assert np.array_equal(found.labels, stored["labels"])
    assert (found.split, found.scores.num_images, found.weights.which, found.weights.epoch) == ("test", 360, "last", 4)
    assert files_of(run.path) == before


def test_the_best_and_the_averaged_weights_give_exactly_what_the_run_found(run: Run) -> None:
    assert run.result is not None
    best = run.evaluate(checkpoint="best")
    assert np.array_equal(best.logits, np.load(run.path / "predictions.npz")["best_logits"])
    chosen = max(run.metrics, key=lambda row: row["val_accuracy"] or 0)
    assert best.weights.epoch == chosen["epoch"]
    averaged = run.evaluate(checkpoint="ema")
    assert averaged.accuracy == run.metrics[-1]["ema_test_accuracy"]
    assert averaged.loss == pytest.approx(run.metrics[-1]["ema_test_loss"])
    assert not np.array_equal(averaged.logits, run.evaluate().logits)


def test_validation_and_training_images_are_those_of_the_run(run: Run) -> None:
    val = run.evaluate("val")
    assert (val.scores.num_images, val.accuracy) == (100, run.metrics[-1]["val_accuracy"])
    assert run.evaluate("train").scores.num_images == 1337


def test_the_text_says_split_weights_epoch_and_number(run: Run, command) -> None:
    code, out, err = command("eval", str(run.path))
    assert (code, err) == (0, "")
    assert "test: 360 images of digits; last weights (epoch 4) of " in out
    assert re.search(
        r"^Accuracy \d\d\.\d\d% \(\d+ of 360\), 95% interval \[\d+\.\d+, \d+\.\d+\] \(Wilson\)$", out, re.M
    )
    assert "optimistic" not in out
    assert max(map(len, out.splitlines()[1:])) <= 80
    assert "The network was trained on these images." in command("eval", str(run.path), "--split", "train")[1]
    chosen = command("eval", str(run.path), "--split", "val", "--checkpoint", "best")[1]
    assert "The epoch was chosen on these images, so its accuracy is too optimistic." in chosen


def test_the_same_as_json(run: Run, command) -> None:
    code, out, _ = command("eval", str(run.path), "--json", "--tta", "--checkpoint", "best")
    assert code == 0
    values, found = json.loads(out), run.evaluate(checkpoint="best")
    assert values["accuracy"] == found.accuracy
    assert values["confusion"] == found.confusion.tolist()
    assert sum(each["num_images"] for each in values["classes"]) == values["num_images"] == 360
    low, high = values["accuracy_interval"]
    assert low < values["accuracy"] < high
    assert values["test_time_augmentation"]["views"] == 5


def evaluated(num_classes: int, names: Sequence[str], count: int = 3000) -> Evaluated:
    random = np.random.default_rng(num_classes)
    labels = random.integers(0, num_classes, count)
    logits = random.normal(size=(count, num_classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1
    correct = int((logits.argmax(1) == labels).sum())
    scores = Scores(1.0, correct / count, correct, count)
    trained = Trained(None, "last", 3, 0, None)  # type: ignore[arg-type]
    return Evaluated(Path("run"), "test", "own", trained, tuple(names), labels, logits, scores, None, ())


@pytest.mark.parametrize("count", [10, 100_000])
@pytest.mark.parametrize("num_classes", [2, 10, 15, 16, 100])
@pytest.mark.parametrize("name", ["{}", "a rather long name of a class, number {}, and more than fits", "猫{}"])
def test_the_text_fits_into_80_columns(num_classes: int, name: str, count: int) -> None:
    lines = list(evaluated(num_classes, [name.format(i) for i in range(num_classes)], count).lines())
    assert max(map(len, lines)) <= 80
    has_matrix = any(line.startswith("Confusion: ") for line in lines)
    assert has_matrix == (num_classes <= (15 if count == 10 else 10))
    assert has_matrix != any(line.startswith("Confusions: the largest of ") for line in lines)


def test_a_network_that_always_gives_one_class_can_be_shown() -> None:
    labels = np.array([0, 1, 1, 2])
    logits = np.tile(np.array([0.0, 9.0, 0.0, 0.0], dtype=np.float32), (4, 1))
    found = replace(evaluated(4, "abcd"), labels=labels, logits=logits, scores=Scores(1.0, 0.5, 2, 4))
    rows = {line.split()[0]: line.split()[1:] for line in found.lines() if re.match("[abcd] ", line)}
    assert rows["a"] == ["0", "1", "0", "0"] or rows["a"] == [".", "1", ".", "."]
    assert "d           0" in "\n".join(found.lines())
    assert found.to_json()["classes"][3] == {"name": "d", "num_images": 0, "accuracy": None}


# Another data set


@pytest.fixture
def reversed_digits(tmp_path: Path) -> Path:
    """The digits with their classes in the opposite order, as a file of arrays."""
    digits = read_digits(1437)
    np.savez(
        tmp_path / "reversed.npz",
        x_train=digits.train_images,
        y_train=9 - digits.train_labels,
        x_test=digits.test_images,
        y_test=9 - digits.test_labels,
    )
    return tmp_path / "reversed.npz"


NAMES = "data.class_names=['9','8','7','6','5','4','3','2','1','0']"


def test_another_data_set_is_matched_by_the_names_of_its_classes(run: Run, reversed_digits: Path, command) -> None:
    words = ("eval", str(run.path), "--data", "npz", f"data.root={reversed_digits}")
    code, out, err = command(*words, NAMES, "--json")
    assert (code, err) == (0, "")
    assert (json.loads(out)["accuracy"], json.loads(out)["notes"]) == (run.evaluate().accuracy, [])
    assert np.array_equal(
        run.evaluate(data=["data=npz", f"data.root={reversed_digits}", NAMES]).logits, run.evaluate().logits
    )


def test_classes_of_other_names_are_matched_by_number_and_that_is_said(
    run: Run, reversed_digits: Path, command
) -> None:
    words = ("eval", str(run.path), "--data", "npz", f"data.root={reversed_digits}")
    code, out, _ = command(*words, "data.class_names=[a,b,c,d,e,f,g,h,i,j]", "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] < 0.3
    assert "matched by number: 0 = a, 1 = b" in json.loads(out)["notes"][0]


def test_another_data_set_is_normalised_as_the_network_learned_it(run: Run, reversed_digits: Path) -> None:
    words = ["data=npz", f"data.root={reversed_digits}", NAMES]
    assert run.evaluate(data=[*words, "data.mean=[0.9]", "data.std=[0.1]"]).loss == run.evaluate().loss


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--data", "cifar10"], 2, "--data must have images of 1×28×28 in 10 classes, as the run, got cifar10: 3×32×32 in 10 classes."),
        (["--data", "emnist", "data.mean=[0.1]", "data.std=[0.3]"], 2, "got emnist: 1×28×28 in 47 classes."),
        (["--data", "mnist", "data.root=nowhere"], 3, "nowhere/MNIST/raw/train-images-idx3-ubyte.gz must exist or be"),
        (["--data", "minst"], 2, "minst"),
        (["--data", "mnist", "optimizer.lr=1"], 2, "optimizer.lr=1 must be an override of the data set"),
        (["data.root=nowhere"], 2, "Overrides must go with --data, got 'data.root=nowhere'. Add --data NAME."),
        (["--data-root", "x"], 2, "--data-root must not be given: digits is not read from a folder, got 'x'."),
        (["--data", "mnist", "--data-root", "x"], 2, "--data-root must be used without --data, got 'x'."),
        (["--data", "mnist", "data.root=nowhere", "--split", "val"], 2, "--split must be one of test, train: there are no validation images"),
        (["--to", "file/x"], 4, "must be a folder that can be created, got Not a directory"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_once(
    words: list[str], code: int, message: str, run: Run, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from era_cnn.data import idx

    def no_network(url: str, most_bytes: int) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setattr(idx, "fetch", no_network)
    (tmp_path / "file").touch()
    got, _, err = command("eval", str(run.path), *words)
    assert got == code
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_data_that_has_changed_since_the_run_is_noticed(colour_run: tuple[Run, Path], tmp_path: Path) -> None:
    run, images = colour_run
    shutil.copytree(images, tmp_path / "moved")
    assert run.evaluate(data_root=tmp_path / "moved").notes == ()
    save(tmp_path / "moved" / "test" / "cat" / "0.png", np.zeros((31, 20, 3)))
    assert "These images are not those of the run" in run.evaluate(data_root=tmp_path / "moved").notes[0]


# Test-time augmentation


@pytest.mark.parametrize(
    ("augmentation", "count"),
    [("none", 5), ("rotate", 5), ("horizontal_flip", 10), ("[vertical_flip,horizontal_flip]", 20)],
)
def test_images_are_mirrored_only_as_in_training(augmentation: str, count: int) -> None:
    views, description = views_of(config_of(f"augmentation={augmentation}"))
    image = torch.arange(12.0).view(1, 1, 3, 4)
    seen = [tuple(view(image).flatten().tolist()) for view in views]
    assert len(set(seen)) == len(views) == count
    assert torch.equal(views[0](image), image)
    assert ("horizontal_flip" in description) == ("horizontal_flip" in augmentation)


def test_a_shift_repeats_the_border() -> None:
    image = torch.arange(6).view(1, 1, 2, 3)
    assert _Shift(0, 1)(image).tolist() == [[[[0, 0, 1], [3, 3, 4]]]]
    assert _Shift(-1, 0)(image).tolist() == [[[[3, 4, 5], [3, 4, 5]]]]


def test_augmentation_is_never_the_headline(run: Run, command) -> None:
    plain = command("eval", str(run.path))[1].splitlines()
    augmented = command("eval", str(run.path), "--tta")[1].splitlines()
    (line,) = (line for line in augmented if line not in plain)
    assert line.startswith("With test-time augmentation (5 views: shifts by one pixel): accuracy ")
    assert [each for each in augmented if each != line] == plain


def test_views_are_averaged_over_probabilities(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from era_cnn.use import evaluate as module

    monkeypatch.setattr(module, "SHIFTS", (_Shift(0, 0), _Shift(0, 0)))
    found = run.evaluate(tta=True)
    assert found.augmented is not None
    assert found.augmented.scores.num_correct == found.scores.num_correct
    assert found.augmented.scores.loss == pytest.approx(found.loss, rel=1e-5)


# Files


def test_predictions_are_written_into_a_new_folder(run: Run, command, tmp_path: Path) -> None:
    assert command("eval", str(run.path), "--to", "found")[0] == 0
    code, out, _ = command("eval", str(run.path), "--to", "found")
    assert (code, out.splitlines()[-1]) == (0, "Predictions: found_2")
    stored = np.load(tmp_path / "found" / "predictions.npz")
    lines = (tmp_path / "found" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "index,class,predicted,confidence"
    assert [int(line.split(",")[2]) for line in lines[1:]] == stored["predicted"].tolist()
    assert np.array_equal(stored["logits"], run.evaluate().logits)


def test_a_split_that_does_not_exist_is_refused_before_anything_is_read(run: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(Run, "trained", None)
    with pytest.raises(ConfigError, match="--split must be one of test, val, train, got 'dev'"):
        run.evaluate("dev")
