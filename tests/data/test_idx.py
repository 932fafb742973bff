from __future__ import annotations

import dataclasses
import gzip
import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from era_cnn.data import idx
from era_cnn.data.idx import IDX_SOURCES, IdxFile, IdxSource, parse_idx, read_idx_data
from era_cnn.errors import DataError
from tests.conftest import MNIST_ROOT
from tests.helpers import unprivileged

NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 30 + 10 images under the name of MNIST, whole, as gzipped files; gives its root."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (30, 28, 28)), np.arange(30) % 10, rng.integers(0, 256, (10, 28, 28)), np.arange(10)]
    raw_dir = tmp_path / "tiny" / "MNIST" / "raw"
    raw_dir.mkdir(parents=True)
    files = []
    for name, array in zip(NAMES, arrays, strict=True):
        raw = idx_bytes(array.astype(np.uint8))
        packed = gzip.compress(raw, mtime=0)
        (raw_dir / f"{name}.gz").write_bytes(packed)
        files.append(IdxFile(name, array.shape, hashlib.sha256(packed).hexdigest(), hashlib.sha256(raw).hexdigest()))
    monkeypatch.setitem(idx.IDX_SOURCES, "mnist", IdxSource("MNIST", tuple(files), ("http://mirror/",)))
    return tmp_path / "tiny"


def unpack(root: Path) -> None:
    for path in list((root / "MNIST" / "raw").glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def test_gzipped_and_unpacked_files_give_the_same(tiny: Path) -> None:
    packed = read_idx_data("mnist", tiny)
    unpack(tiny)
    unpacked = read_idx_data("mnist", tiny)
    assert packed.sha256 == unpacked.sha256
    assert packed.train_images.shape == (30, 28, 28)
    assert packed.test_labels.tolist() == list(range(10))


def scattered(root: Path, place: str, name: str, packing: str) -> Path:
    """Moves the files of a root to another place, under other names, packed or not."""
    unpack(root)
    for path in list((root / "MNIST" / "raw").iterdir()):
        content = path.read_bytes()
        if packing:
            content = gzip.compress(content, int(packing), mtime=1)
        target = root / place / name.format(path.name, dotted=path.name.replace("-idx", ".idx"))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.unlink()
        target.write_bytes(content)
    return root


@pytest.mark.parametrize("packing", ["", "1", "9"])
@pytest.mark.parametrize("name", ["{}", "{}.gz", "{dotted}", "{dotted}.gz"])
@pytest.mark.parametrize("place", ["MNIST/raw", "", "raw", "MNIST", "archive", "a/b"])
def test_the_content_counts_wherever_and_however_it_is_stored(
    place: str, name: str, packing: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "fetch", lambda url, most_bytes: pytest.fail("it must not be asked for"))
    expected = read_idx_data("mnist", tiny).sha256
    assert read_idx_data("mnist", scattered(tiny, place, name, packing)).sha256 == expected


@pytest.mark.parametrize("below", ["MNIST", "MNIST/raw", "a", "a/b"])
def test_a_root_that_is_one_or_two_levels_too_deep(below: str, tiny: Path) -> None:
    expected = read_idx_data("mnist", tiny).sha256
    (tiny / below).mkdir(parents=True, exist_ok=True)
    assert read_idx_data("mnist", tiny / below).sha256 == expected


def test_kaggles_folders_with_the_names_of_files(tiny: Path) -> None:
    expected = read_idx_data("mnist", tiny).sha256
    unpack(tiny)
    for path in list((tiny / "MNIST" / "raw").iterdir()):
        (tiny / path.name).mkdir()
        path.rename(tiny / path.name / path.name)
    assert read_idx_data("mnist", tiny).sha256 == expected


def test_the_files_of_another_data_set_are_passed_over(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fashion-MNIST's files have the names of MNIST's."""
    expected = read_idx_data("mnist", tiny).sha256
    scattered(tiny, "own", "{}", "")
    (tiny / "FashionMNIST" / "raw").mkdir(parents=True)
    for name in NAMES:
        (tiny / "FashionMNIST" / "raw" / name).write_bytes(b"another")
    assert read_idx_data("mnist", tiny).sha256 == expected


def test_a_gzip_bomb_elsewhere_is_passed_over(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "fetch", lambda url, most_bytes: (_ for _ in ()).throw(OSError("no network")))
    scattered(tiny, "own", "{}.gz", "9")
    (tiny / "own" / f"{NAMES[0]}.gz").write_bytes(gzip.compress(bytes(2**26)))
    with pytest.raises(DataError, match="must exist or be downloadable, got: .*no network"):
        read_idx_data("mnist", tiny)


def test_a_read_only_folder_is_enough(tiny: Path) -> None:
    for path in [*tiny.rglob("*"), tiny]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(tiny.rglob("*"))
    read_idx_data("mnist", tiny)
    assert sorted(tiny.rglob("*")) == before
    for path in [tiny, *tiny.rglob("*")]:
        path.chmod(0o755)


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_swap(path: Path) -> None:
    labels = path.with_name(path.name.replace("train-images-idx3", "train-labels-idx1"))
    shutil.copy(labels, path)


def damage_html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404</body></html>", encoding="utf-8")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "guess"),
    [
        (damage_truncate, "truncated, changed or from elsewhere"),
        (damage_flip, "truncated, changed or from elsewhere"),
        (damage_swap, "the contents of train-labels-idx1-ubyte"),
        (damage_html, "a web page"),
        (damage_empty, "an empty file"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_file_is_named_with_what_was_expected_and_found(damage, guess, packed: bool, tiny: Path) -> None:
    if not packed:
        unpack(tiny)
    path = tiny / "MNIST" / "raw" / (NAMES[0] + (".gz" if packed else ""))
    damage(path)
    file = IDX_SOURCES["mnist"].files[0]
    with pytest.raises(DataError) as caught:
        read_idx_data("mnist", tiny)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = file.gz_sha256 if packed else file.raw_sha256
    assert str(caught.value).startswith(f"{path} must have the SHA-256 {expected}, got {found} (")
    assert guess in str(caught.value)
    assert "data=digits" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_folder_in_place_of_a_file(tiny: Path) -> None:
    damage_folder(tiny / "MNIST" / "raw" / f"{NAMES[0]}.gz")
    with pytest.raises(DataError, match="must be readable, got Is a directory"):
        read_idx_data("mnist", tiny)


def test_a_pipe_or_an_endless_file_is_not_waited_for(tiny: Path) -> None:
    path = tiny / "MNIST" / "raw" / f"{NAMES[0]}.gz"
    for replace in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        path.unlink()
        replace()
        with pytest.raises(DataError, match=f"{NAMES[0]}.gz must have the SHA-256"):
            read_idx_data("mnist", tiny)


def test_a_folder_of_another_user_is_not_downloaded_to(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "fetch", lambda url, most_bytes: pytest.fail("it must not be asked for"))
    raw_dir = tiny / "MNIST" / "raw"
    raw_dir.chmod(0)
    os.chdir(tiny)
    with unprivileged(tiny), pytest.raises(DataError, match="must be readable, got Permission denied"):
        read_idx_data("mnist", Path())
    raw_dir.chmod(0o700)


@pytest.mark.parametrize("root", ["x" * 300, "nothing", "file/data", "/proc/self/data"])
def test_a_root_where_nothing_can_be_is_not_downloaded_to(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nothing").symlink_to("nowhere")
    (tmp_path / "file").touch()
    monkeypatch.setattr(idx, "fetch", lambda url, most_bytes: b"")
    with pytest.raises(DataError, match="must be readable, got File name too long|must exist or be downloadable"):
        read_idx_data("mnist", tmp_path / root)
    assert {path.name for path in tmp_path.iterdir()} == {"nothing", "file"}


def test_the_next_mirror_is_asked_and_only_for_what_is_missing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, asked = idx.IDX_SOURCES["mnist"], []
    mirrors = ("http://silent/", "http://portal/", "http://good/")
    monkeypatch.setitem(idx.IDX_SOURCES, "mnist", dataclasses.replace(source, mirrors=mirrors))
    kept = tmp_path / "kept"
    shutil.copytree(tiny, kept)
    (tiny / "MNIST" / "raw" / f"{NAMES[1]}.gz").unlink()

    def fetch(url: str, most_bytes: int) -> bytes:
        asked.append(url)
        if "silent" in url:
            raise TimeoutError("timed out")
        return b"<html>Log in</html>" if "portal" in url else (kept / "MNIST" / "raw" / f"{NAMES[1]}.gz").read_bytes()

    monkeypatch.setattr(idx, "fetch", fetch)
    assert read_idx_data("mnist", tiny).sha256 == read_idx_data("mnist", kept).sha256
    assert asked == [f"{mirror}{NAMES[1]}.gz" for mirror in mirrors]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(np.zeros((9, 28, 28), np.uint8)), "must begin with 00000803000000"),  # fewer images than labels
        (idx_bytes(np.zeros((10, 28, 28), np.uint8))[:-1], "must have 7,856 bytes unpacked, got 7,855"),
        (idx_bytes(np.zeros((10, 28, 28), np.uint8)) + b"0", "must have 7,856 bytes unpacked, got 7,857"),
        (idx_bytes(np.zeros(10, np.uint8)), "must begin with 00000803"),
        (b"", "must begin with 00000803"),
    ],
)
def test_the_sizes_in_a_file_must_be_those_of_the_set(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_idx(content, (10, 28, 28), Path("images"))


def test_what_cannot_be_had_is_said_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str, most_bytes: int) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setattr(idx, "fetch", no_network)
    with pytest.raises(DataError) as caught:
        read_idx_data("mnist", tmp_path / "nothing")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/nothing/MNIST/raw/train-images-idx3-ubyte.gz must exist or be downloadable")
    assert "no route to host" in message
    assert "use data=digits" in message


def test_a_root_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="must exist or be downloadable, got"):
        read_idx_data("mnist", tmp_path / "file")


def fake_fetch(origin: Path):
    """In place of a server: gives the files, and notes each download."""

    def fetch(url: str, most_bytes: int) -> bytes:
        with (origin.parent / "downloads").open("a", encoding="utf-8") as log:
            log.write("x")
        return (origin / "MNIST" / "raw" / url.rpartition("/")[2]).read_bytes()

    return fetch


def read_in_process(root: Path, queue: multiprocessing.Queue) -> None:
    queue.put(read_idx_data("mnist", root).sha256)


def test_two_processes_that_start_at_once_download_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "fetch", fake_fetch(tiny))
    expected = read_idx_data("mnist", tiny).sha256
    context = multiprocessing.get_context("fork")  # so that the tiny set and the fetcher are there too
    queue = context.Queue()
    workers = [context.Process(target=read_in_process, args=(tmp_path / "new", queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    digests = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert digests == [expected, expected]
    assert (tmp_path / "downloads").read_text(encoding="utf-8") == "xxxx"


def test_a_damaged_download_never_takes_its_place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage_html(tiny / "MNIST" / "raw" / f"{NAMES[2]}.gz")
    monkeypatch.setattr(idx, "fetch", fake_fetch(tiny))
    with pytest.raises(DataError, match="a web page"):
        read_idx_data("mnist", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.mnist
@pytest.mark.skipif(MNIST_ROOT is None, reason="ERA_CNN_DATA is not set")
def test_real_mnist() -> None:
    arrays = read_idx_data("mnist", Path(str(MNIST_ROOT)))
    assert arrays.train_images.shape == (60_000, 28, 28)
    assert np.bincount(arrays.train_labels)[0] == 5923
    assert round(float(arrays.train_images.mean()) / 255, 4) == 0.1307
    assert round(float(arrays.train_images.std()) / 255, 4) == 0.3081
