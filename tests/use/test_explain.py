"""`era-cnn explain`: a picture for each image, and a network that is left as it was."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from era_cnn.data.digits import read_digits
from era_cnn.errors import ConfigError, DataError
from era_cnn.models.gradcam import Maps
from era_cnn.training.fingerprint import weights_sha256
from era_cnn.use import explain as module
from era_cnn.use.network import Run, Which
from tests.use.photos import save_photo

DIGITS = read_digits(1437).test_images


def test_the_picture_shows_the_photo_what_the_network_saw_and_the_evidence(run: Run, command, tmp_path: Path) -> None:
    save_photo(tmp_path / "photo.jpg", DIGITS[4], 4)
    code, out, err = command("explain", str(run.path), "photo.jpg")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert re.fullmatch(r"last weights \(epoch 4\) of .*; Grad-CAM of the layer \w+", lines[0])
    folder = tmp_path / lines[1].removeprefix("Folder: ")
    assert re.fullmatch(r"explained/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d_model_4_digits", lines[1].removeprefix("Folder: "))
    name, score = next(run.predict("photo.jpg").top(1))[0]
    assert lines[4].split() == ["photo.jpg", name, f"{100 * score:.1f}%", "1_photo.png"]
    picture = np.asarray(Image.open(folder / "1_photo.png")).astype(int)
    height, width = picture.shape[:2]
    assert (height, width) == (280, 360 + 8 + 280 + 8 + 280)
    grey = (picture == picture[:, :, :1]).all(axis=2)
    assert grey[:, 368:648].all()
    assert not grey[:, 656:].all()
    assert picture[:, :360].mean() > 100 > picture[:, 368:648].mean()


def test_any_class_can_be_explained(run: Run, pngs: Path, command, tmp_path: Path) -> None:
    pictures = []
    for name in ("3", "8"):
        code, out, _ = command("explain", str(run.path), str(pngs / "003.png"), "--class", name, "--to", f"for_{name}")
        assert code == 0
        assert out.splitlines()[4].split()[1] == name
        pictures.append((tmp_path / f"for_{name}" / "1_003.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_an_unknown_class_is_refused(run: Run, pngs: Path, command, tmp_path: Path) -> None:
    code, _, err = command("explain", str(run.path), str(pngs / "000.png"), "--class", "ten")
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert err == "--class must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got 'ten'. Choose one of them.\n"


def test_no_positive_evidence_is_a_result(
    run: Run, pngs: Path, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "grad_cam", lambda network, images, classes: Maps(torch.zeros(1, 6, 6), "conv"))
    code, out, _ = command("explain", str(run.path), str(pngs / "000.png"), "--to", "out")
    assert code == 0
    assert out.splitlines()[4].endswith("1_000.png  no positive evidence")
    assert (tmp_path / "out" / "1_000.png").exists()


def test_many_images_give_what_each_gives_alone_and_the_network_stays(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOGETHER", 3)
    trained = run.trained()
    before = weights_sha256(trained.network)
    together = module.explain(trained, run.config, DIGITS[:8, None])
    assert weights_sha256(trained.network) == before
    assert not trained.network.training
    for number in range(8):
        alone = module.explain(trained, run.config, DIGITS[number : number + 1, None])
        np.testing.assert_allclose(alone.maps[0], together.maps[number], atol=1e-4)
        assert alone.classes[0] == together.classes[number]
    assert np.array_equal(run.evaluate().logits, run.evaluate().logits)


def test_images_in_colour_and_of_other_sides_are_shown(colour_run: tuple[Run, Path], command, tmp_path: Path) -> None:
    run, images = colour_run
    code, _, err = command("explain", str(run.path), str(images / "test"), "--to", "out")
    assert (code, err) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 7
    with Image.open(tmp_path / "out" / "1_0.png") as picture:
        assert picture.size == (round(20 * 280 / 31) + 8 + 2 * 320 + 8, 280)


@pytest.mark.parametrize("checkpoint", ["last", "best", "ema"])
def test_python_gives_the_heat_maps_of_the_command(checkpoint: Which, run: Run, pngs: Path) -> None:
    files = [pngs / "003.png", pngs / "008.png"]
    found, predicted = run.explain(files, checkpoint=checkpoint), run.predict(files, checkpoint=checkpoint)
    assert np.array_equal(found.classes, predicted.classes)
    assert np.array_equal(found.scores, predicted.scores.max(axis=1))
    assert np.array_equal(found.images, DIGITS[[3, 8], None])
    assert found.heat_maps.shape == (2, 28, 28)
    assert found.heat_maps.dtype == np.float32
    assert (found.heat_maps.min() >= 0, 0.9 < found.heat_maps.max() <= 1) == (True, True)
    coarse = [np.unravel_index(each.argmax(), each.shape) for each in found.maps]
    fine = [np.unravel_index(each.argmax(), each.shape) for each in found.heat_maps]
    scale = 28 / found.maps.shape[1]
    assert np.abs(np.array(fine) - (np.array(coarse) + 0.5) * scale).max() <= scale


def test_python_explains_arrays_and_any_class(run: Run) -> None:
    found = run.explain(DIGITS[:2], class_name="8")
    assert found.classes.tolist() == [8, 8]
    assert not np.array_equal(found.maps, run.explain(DIGITS[:2], class_name="3").maps)


@pytest.mark.parametrize(("images", "class_name", "kind", "message"), [
    (DIGITS[:1], "ten", ConfigError, r"class_name must be one of 0, 1, .*, got 'ten'\. Choose one of them"),
    (DIGITS[:1, :5], None, ConfigError, r"images must be uint8 of shape"),
    ("missing.png", None, DataError, r"missing.png must be an image that can be read"),
])  # fmt: skip
def test_what_python_can_not_explain_is_refused(images, class_name, kind, message: str, run: Run) -> None:
    with pytest.raises(kind, match=message):
        run.explain(images, class_name=class_name)
