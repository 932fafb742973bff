"""The cache of decoded images: what is in it, when it is used, and what happens to one that is damaged or not whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from era_cnn.config.sections import FieldError
from era_cnn.data import building, cache
from era_cnn.data.arrays import Arrays, Known
from era_cnn.data.batches import Split
from era_cnn.data.cache import cached
from era_cnn.data.decoding import Decoder
from era_cnn.data.listing import Listing, list_images
from era_cnn.data.own import ImageFolder
from era_cnn.errors import DataError, StorageError
from tests.data.folders import TWO_SPLITS, make_folder, save
from tests.helpers import unprivileged


@pytest.fixture(autouse=True)
def images_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "era_cnn" / "images"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "own", {**TWO_SPLITS, "val/dog": 2})


def listing_of(root: Path) -> Listing:
    return list_images(str(root), test_share=None, split_seed=0, empty_classes="refuse")


def entry_of(root: Path, decoder: Decoder = Decoder()) -> cache.Entry:  # noqa: B008
    return cached(listing_of(root), decoder)


def read(root: Path, **fields: object) -> Arrays:
    return ImageFolder(root=str(root), **fields).read()  # type: ignore[arg-type]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths that are decoded from now on."""
    paths: list[str] = []
    original = Decoder.try_to_decode
    monkeypatch.setattr(Decoder, "try_to_decode", lambda self, path: (paths.append(path), original(self, path))[1])
    return paths


def test_images_are_those_of_the_files_in_order(root: Path) -> None:
    arrays, listing = read(root), listing_of(root)
    for split, (_, images, labels) in zip(listing.splits, arrays.splits(), strict=True):
        files = listing.splits[split]
        expected = [np.asarray(Image.open(root / file.path)).transpose(2, 0, 1) for file in files]
        assert np.array_equal(images, expected)
        assert labels.tolist() == [file.label for file in files]
    assert arrays.class_names == ("cat", "dog")
    assert arrays.contents == {"shape": [3, 8, 6], "class_names": ["cat", "dog"], "train_size": 10, "test_size": 5, "val_size": 2}  # fmt: skip


def test_images_stay_on_disk_until_they_are_used(root: Path) -> None:
    arrays = read(root)
    assert isinstance(arrays.train_images, np.memmap)
    split = Split.on(torch.device("cpu"), arrays.train_images, arrays.train_labels).at(torch.tensor([3, 1]))
    assert split.base.data_ptr() == arrays.train_images.ctypes.data
    assert np.array_equal(split.images, arrays.train_images[[3, 1]])


def test_digest_and_statistics_are_stored_and_right(root: Path) -> None:
    arrays = read(root)
    computed = Arrays(*(np.array(each) for each in list(vars(arrays).values())[:6]), arrays.class_names)
    assert arrays.known == Known(computed.sha256, computed.statistics)
    pixels = np.array(arrays.train_images, dtype=np.float64) / 255
    assert arrays.statistics.mean == pixels.mean(axis=(0, 2, 3)).round(4).tolist()
    assert arrays.statistics.std == pixels.std(axis=(0, 2, 3)).round(4).tolist()


def test_images_are_decoded_once(root: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first = read(root)
    assert len(decoded) == 17
    assert capsys.readouterr().err.startswith(f"Decoding the images in {root}, once, into ")
    assert read(root).sha256 == first.sha256
    assert len(decoded) == 17
    assert capsys.readouterr().err == ""


def test_a_folder_that_was_moved_is_known(root: Path, decoded: list[str], tmp_path: Path) -> None:
    read(root)
    root.rename(tmp_path / "moved")
    read(tmp_path / "moved")
    assert len(decoded) == 17


def change_time(root: Path) -> None:
    os.utime(root / "train/cat/0.png", ns=(1, 1))


def change_size(root: Path) -> None:
    path = root / "train/cat/0.png"
    times = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(times, times))


def rename(root: Path) -> None:
    (root / "train/cat/0.png").rename(root / "train/cat/00.png")


def add(root: Path) -> None:
    save(root / "train/cat/new.png", np.zeros((8, 6, 3)))


def remove(root: Path) -> None:
    (root / "train/cat/0.png").unlink()


def move_to_another_class(root: Path) -> None:
    (root / "train/cat/0.png").rename(root / "train/dog/00.png")


@pytest.mark.parametrize("change", [change_time, change_size, rename, add, remove, move_to_another_class])
def test_a_change_of_the_files_is_noticed(change, root: Path, decoded: list[str]) -> None:
    read(root)
    decoded.clear()
    change(root)
    read(root)
    assert len(decoded) >= 16


@pytest.mark.parametrize("fields", [{"size": [4, 4]}, {"channels": 1}, {"background": 0}, {"max_pixels": 50}])
def test_other_fields_have_another_entry(fields: dict[str, object], root: Path, images_dir: Path) -> None:
    read(root)
    read(root, **fields)
    assert len(list(images_dir.iterdir())) == 2


def test_another_decoder_has_another_entry(root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read(root)
    monkeypatch.setattr(cache.PIL, "__version__", "0.0")
    read(root)
    assert len(decoded) == 34


@pytest.mark.parametrize(("channels", "number"), [(None, 3), (1, 1), (3, 3)])
def test_one_image_in_colour_makes_all_colour(channels: int | None, number: int, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mixed", TWO_SPLITS, grey=True)
    make_folder(root, {"train/dog": 1})
    assert read(root, channels=channels).contents["shape"] == [number, 8, 6]


def test_grey_images_have_one_channel_also_if_they_are_stored_as_colour(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "grey", TWO_SPLITS, grey=True)
    before = read(root)
    assert before.contents["shape"] == [1, 8, 6]
    for path in root.rglob("*.png"):
        save(path, np.asarray(Image.open(path)), "RGB")
    assert read(root).sha256 == before.sha256


def test_images_of_different_sizes_need_one(root: Path, images_dir: Path) -> None:
    for number in range(3):
        save(root / f"test/cat/{number}.png", np.zeros((5, 7, 3)))
    with pytest.raises(FieldError) as caught:
        read(root)
    got = "8×6 (15 images), 5×7 (3 images)"
    rule = f"data.size must be given, since the images in {root} have 2 sizes: {got}, got null. Set data.size=[8,6]"
    assert caught.value.at("data").startswith(rule)
    assert list(images_dir.iterdir()) == []
    assert read(root, size=[4, 4]).contents["shape"] == [3, 4, 4]


def damage(root: Path) -> None:
    (root / "train/cat/0.png").write_bytes(b"<html>")
    (root / "test/dog/2.png").write_bytes((root / "test/dog/2.png").read_bytes()[:60])


def test_damaged_images_are_all_named(root: Path, decoded: list[str]) -> None:
    damage(root)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            read(root)
        message = str(caught.value)
        assert f"{root} must have no damaged images, got 2: train/cat/0.png (no image in one of" in message
        assert "test/dog/2.png (" in message
        assert message.endswith("Replace or remove them, or set data.damaged=skip.")
    assert len(decoded) == 17  # that they are damaged is known the second time


def test_damaged_images_can_be_skipped(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = read(root)
    damage(root)
    arrays = read(root, damaged="skip")
    assert (len(arrays.train_labels), len(arrays.test_labels)) == (9, 4)
    assert np.array_equal(arrays.train_images, whole.train_images[1:])  # cat/0 is the first
    assert "Skipped 2 damaged images: train/cat/0.png (no image" in capsys.readouterr().err


def test_a_split_of_damaged_images_only_is_refused(root: Path) -> None:
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="must hold images, got damaged ones only: val/dog/0.png"):
        read(root, damaged="skip")


def test_a_decoder_that_warns_prints_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.new("P", (6, 8))
    image.info["transparency"] = b"\x00\x01"
    image.save(root / "train/cat/palette.png")
    read(root)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["index.json", "train", "test", "val"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff" * 100_000])
def test_a_damaged_entry_is_built_again(
    name: str,
    content: bytes | None,
    root: Path,
    images_dir: Path,
    decoded: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = np.array(read(root).train_images)
    (entry,) = images_dir.iterdir()
    (entry / name).unlink()
    if content is not None:
        (entry / name).write_bytes(content)
    capsys.readouterr()
    assert np.array_equal(read(root).train_images, before)
    assert len(decoded) == 34
    assert f"{entry} is damaged (" in capsys.readouterr().err
    assert list(images_dir.iterdir()) == [entry]


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_an_entry_whose_pixels_were_changed_is_built_again(
    name: str, root: Path, images_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [np.array(images) for _, images, _ in read(root).splits()]
    (entry,) = images_dir.iterdir()
    pixels = bytearray((entry / name).read_bytes())
    pixels[-1] ^= 1
    (entry / name).write_bytes(pixels)
    capsys.readouterr()
    after = [images for _, images, _ in read(root).splits()]
    assert all(map(np.array_equal, before, after))
    said = f"{entry} is damaged (its pixels were changed), and is built again\nDecoding the images in "
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("change", [{"shape": [1, 8, 24]}, {"statistics": [["x"], [1]]}, {"sha256": ["x"]}])
def test_an_index_with_other_values_is_built_again(change: dict[str, object], root: Path, images_dir: Path) -> None:
    before = read(root)
    (entry,) = images_dir.iterdir()
    index = json.loads((entry / "index.json").read_bytes())
    (entry / "index.json").write_text(json.dumps({**index, **change}), encoding="utf-8")
    after = read(root)
    assert (after.shape, after.sha256, after.statistics) == (before.shape, before.sha256, before.statistics)
    assert json.loads((entry / "index.json").read_bytes()) == index


def test_a_file_in_the_place_of_an_entry_is_replaced(root: Path, images_dir: Path) -> None:
    before = read(root).sha256
    (entry,) = images_dir.iterdir()
    shutil.rmtree(entry)
    entry.touch()
    assert read(root).sha256 == before
    assert entry.is_dir()


def test_an_open_entry_keeps_its_pixels_while_it_is_replaced(root: Path, images_dir: Path) -> None:
    arrays = read(root)
    before = np.array(arrays.train_images)
    (entry,) = images_dir.iterdir()
    (entry / "index.json").unlink()
    read(root)
    assert np.array_equal(arrays.train_images, before)


def in_child(work, *arguments) -> int:
    """Runs a function in a fork; gives its process id."""
    child = os.fork()
    if child == 0:
        work(*arguments)
        os._exit(0)
    return child


@pytest.mark.parametrize("count", [1, 8, 16])
def test_a_killed_builder_leaves_nothing_that_looks_whole(
    count: int, root: Path, images_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, number = building._write_pixels, iter(range(1, 100))

    def write_and_die(*arguments: object) -> None:
        original(*arguments)
        if next(number) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(building, "_write_pixels", write_and_die)
        _, status = os.waitpid(in_child(read, root), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    (left,) = images_dir.iterdir()
    assert left.name.startswith(".")
    read(root)
    assert [path.name[0] for path in images_dir.iterdir()] != ["."]
    assert len(list(images_dir.iterdir())) == 1


@pytest.mark.slow
def test_others_wait_for_the_builder_and_decode_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "decoded"
    original = Decoder.try_to_decode

    def slowly(self: Decoder, path: str) -> object:
        with log.open("a") as file:
            file.write("x")
        time.sleep(0.05)
        return original(self, path)

    monkeypatch.setattr(Decoder, "try_to_decode", slowly)
    children = [in_child(read, root) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert log.read_text() == "x" * 17
    assert capfd.readouterr().err.count("Waiting for another process that decodes images to ") == 2


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = listing_of(root)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "closed"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        (tmp_path / "closed").mkdir(exist_ok=True, mode=0o555)
        with unprivileged(tmp_path), pytest.raises(StorageError) as caught:
            cached(listing, Decoder())
        rule = f"XDG_CACHE_HOME must be a folder that can be written to: decoded images are stored in {place}/era_cnn/images"
        assert str(caught.value).startswith(rule)
        assert str(caught.value).endswith("Set it to another folder, or free some space.")


def test_verification_finds_what_size_and_time_do_not_show(root: Path, images_dir: Path) -> None:
    entry = entry_of(root)
    assert cache.verify(entry, listing_of(root), Decoder()) == []
    path = root / "train/dog/1.png"
    status = path.stat()
    other = save(root.parent / "other.png", np.zeros((8, 6, 3))).read_bytes()
    path.write_bytes(other.ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert entry_of(root).arrays.sha256 == entry.arrays.sha256
    assert cache.verify(entry, listing_of(root), Decoder()) == ["train/dog/1.png"]
    assert entry_of(root).arrays.sha256 != entry.arrays.sha256
    assert len(list(images_dir.iterdir())) == 1


def test_the_index_holds_what_was_noticed(root: Path, images_dir: Path) -> None:
    Image.new("CMYK", (6, 8)).save(root / "train/cat/cmyk.tif")
    entry = entry_of(root, Decoder(size=(4, 4)))
    assert entry.sizes == {"8×6": 18}
    assert entry.notes == {"CMYK, converted to RGB without a colour profile": 1}
    assert json.loads((entry.path / "index.json").read_text())["shape"] == [3, 4, 4]
