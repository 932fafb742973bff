from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from era_cnn.config.sections import FieldError
from era_cnn.data import listing as module
from era_cnn.data.listing import Listing, list_images
from era_cnn.errors import DataError
from tests.data.folders import TWO_SPLITS, make_folder


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def list_(
    root: Path, *, test_share: float | None = None, split_seed: int = 0, empty_classes: str = "refuse"
) -> Listing:
    return list_images(str(root), test_share=test_share, split_seed=split_seed, empty_classes=empty_classes)


def counts(listing: Listing) -> dict[str, list[int]]:
    by_split = {split: Counter(file.label for file in files) for split, files in listing.splits.items()}
    return {split: [by_label[i] for i in range(len(listing.class_names))] for split, by_label in by_split.items()}


def paths(listing: Listing, split: str) -> list[str]:
    return [file.path for file in listing.splits[split]]


def test_a_folder_for_each_split(tmp_path: Path) -> None:
    listing = list_(make_folder(tmp_path, {**TWO_SPLITS, "valid/dog": 1}))
    assert listing.class_names == ("cat", "dog")
    assert counts(listing) == {"train": [6, 4], "val": [0, 1], "test": [2, 3]}
    assert listing.folders == {"train": "train", "val": "valid", "test": "test"}
    assert paths(listing, "train")[:3] == ["train/cat/0.png", "train/dog/0.png", "train/cat/1.png"]


@pytest.mark.parametrize(("names", "splits"), [(("Train", "TEST"), ["train", "test"]), (("training", "test"), ["train", "test"])])  # fmt: skip
def test_other_names_of_the_splits(names: tuple[str, str], splits: list[str], tmp_path: Path) -> None:
    listing = list_(make_folder(tmp_path, {f"{name}/{each}": 1 for name in names for each in ("a", "b")}))
    assert list(listing.splits) == splits


def test_numeric_classes_are_sorted_as_strings(tmp_path: Path) -> None:
    listing = list_(touch(tmp_path, *(f"{name}/{number}.png" for name in range(12) for number in range(2))))
    assert listing.class_names == tuple(sorted(map(str, range(12)))) == ("0", "1", "10", "11", *"23456789")


def test_a_class_without_test_images_keeps_the_labels_of_all_others(tmp_path: Path) -> None:
    listing = list_(touch(tmp_path, *(f"train/{name}/1.png" for name in "abcd"), "test/a/1.png", "test/d/1.png"))
    assert [file.label for file in listing.splits["test"]] == [0, 3]
    (tmp_path / "test" / "b").mkdir()
    assert [file.label for file in list_(tmp_path).splits["test"]] == [0, 3]


def test_what_is_no_image_or_hidden_is_ignored_and_listed(tmp_path: Path) -> None:
    make_folder(tmp_path, TWO_SPLITS)
    stray = (
        ".DS_Store", "README.md", "__MACOSX/train/cat/._0.png", "train/.ipynb_checkpoints/0.png", "train/Thumbs.db",
        "train/cat/._1.png", "train/cat/notes.txt", "other/cat/1.png",
    )  # fmt: skip
    before = list_(tmp_path)
    listing = list_(touch(tmp_path, *stray))
    assert listing == before
    assert listing.ignored == (
        ".DS_Store", "README.md", "__MACOSX", "other", "train/.ipynb_checkpoints", "train/Thumbs.db", "train/cat/._1.png",
        "train/cat/notes.txt",
    )  # fmt: skip


def test_images_in_folders_below_that_of_the_class_belong_to_it(tmp_path: Path) -> None:
    listing = list_(touch(tmp_path, "a/1.png", "a/deep/er/2.PNG", "b/1.jpg", "b/2.jpeg"), test_share=0.5)
    assert sorted([*paths(listing, "train"), *paths(listing, "test")])[:2] == ["a/1.png", "a/deep/er/2.PNG"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "elsewhere/5.png").joinpath("a/up").symlink_to(tmp_path)
    os.rename(tmp_path / "elsewhere", tmp_path.parent / "elsewhere")
    (tmp_path / "b" / "more").symlink_to(tmp_path.parent / "elsewhere")
    (tmp_path / "b" / "nowhere.png").symlink_to("nothing")
    listing = list_(tmp_path)
    found = sorted([*paths(listing, "train"), *paths(listing, "test")])
    assert "b/more/5.png" in found
    assert "b/nowhere.png" in listing.ignored
    assert len(found) < 20


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_single_folder_is_split_in_proportion(share: float, tmp_path: Path) -> None:
    listing = list_(touch(tmp_path, *(f"{name}/{number}.png" for name, n in (("a", 40), ("b", 10), ("c", 2)) for number in range(n))), test_share=share)  # fmt: skip
    assert counts(listing)["test"] == [round(share * 40), round(share * 10), 1]
    assert not set(paths(listing, "train")) & set(paths(listing, "test"))
    assert sum(map(sum, counts(listing).values())) == 52


def test_the_split_depends_on_paths_and_the_seed_and_not_on_the_order_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(50)))
    before, other = list_(tmp_path), list_(tmp_path, split_seed=1)
    assert paths(before, "test") != paths(other, "test")
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(module.os, "scandir", Reversed)
    assert list_(tmp_path) == before


def test_a_new_file_changes_the_side_of_at_most_one_other_of_its_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(50)))
    before = set(paths(list_(tmp_path), "test"))
    for number in range(50, 70):
        after = set(paths(list_(touch(tmp_path, f"a/{number}.png")), "test"))
        assert len(before - after - {f"a/{number}.png"}) + len(after - before - {f"a/{number}.png"}) <= 1
        assert {path for path in before ^ after if path.startswith("b/")} == set()
        before = after


BROKEN: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "must have a folder of images for each of two or more classes, got none. Put the images of"),
    "only files": (("1.png", "2.png"), "two or more classes, got none. Set data.root={parent}, if that holds"),
    "one class": (("a/1.png", "a/2.png"), "for each of two or more classes, got 'a' alone. Put the images"),
    "one level too high": (("set/a/1.png", "set/b/1.png"), "two or more classes, got 'set' alone. Set data.root={root}/set"),
    "above the splits": (("set/train/a/1.png", "set/test/a/1.png"), "got {root}, whose folder set holds them. Set data.root={root}/set"),
    "no test": (("train/a/1.png", "val/a/1.png"), "{root} must have the folders train and test, or a folder for each class, got train, val."),
    "no train": (("test/a/1.png", "val/a/1.png"), "must have the folders train and test, or a folder for each class, got test, val."),
    "two of a kind": (("train/a/1.png", "val/a/1.png", "valid/a/1.png", "test/a/1.png"), "one folder for each split, got test, train, val, valid."),
    "an unknown test class": (("train/cat/1.png", "train/dog/1.png", "test/cats/1.png"), "{root}/test must have no class that the training images lack, got 'cats'. Did you mean cat?"),
    "an unknown val class": (("train/a/1.png", "train/b/1.png", "test/a/1.png", "val/zzzz/1.png"), "{root}/val must have no class that the training images lack, got 'zzzz'. Move it"),
    "no test images": (("train/a/1.png", "train/b/1.png", "test/a/notes"), "{root}/test must hold images, got none."),
    "an empty class": (("a/1.png", "a/2.png", "b/notes"), "{root} must have images in the folder of each class, got none in 'b'. Remove it, or set data.empty_classes"),
    "no training images": (("train/a/x", "train/b/x", "test/a/1.png"), "{root}/train must have a folder of images for each of two or more classes, got none."),
    "a single image": (("a/1.png", "a/2.png", "b/1.png"), "b must have two images or more: one for training and one for testing, got 1."),
    "names that differ in case": (("a/1.png", "A/1.png"), "{root} must have folders whose names differ in more than upper and lower case, got 'A' and 'a'."),
    "a name with a line break": (("a/1.png", "b\nc/1.png"), "{root} must have classes with printable names, got 'b\\nc'."),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_folder_is_said_with_a_way_out(case: str, tmp_path: Path) -> None:
    files, message = BROKEN[case]
    root = tmp_path / "images"
    root.mkdir()
    with pytest.raises(DataError) as caught:
        list_(touch(root, *files))
    assert message.format(root=root, parent=tmp_path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_names_that_are_composed_in_two_ways_are_the_same(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    listing = list_(touch(tmp_path, "train/a/1.png", f"train/{decomposed}/1.png", f"test/{composed}/1.png"))
    assert listing.class_names == ("a", composed)
    assert counts(listing)["test"] == [0, 1]
    with pytest.raises(DataError, match="must have folders whose names differ"):
        list_(touch(tmp_path, f"train/{composed}/1.png"))


@pytest.mark.parametrize(("what", "names"), [("keep", ("a", "b", "c")), ("ignore", ("a", "c"))])
def test_an_empty_class_can_be_kept_or_ignored(what: str, names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/x", "c/1.png", "c/2.png")
    listing = list_(tmp_path, empty_classes=what)
    assert listing.class_names == names
    assert counts(listing)["train"] == [1, 0, 1][: len(names)] if what == "keep" else [1, 1]
    assert ("b" in listing.ignored) == (what == "ignore")


def test_one_of_the_splits_is_not_taken_for_the_root(tmp_path: Path) -> None:
    make_folder(tmp_path, TWO_SPLITS)
    with pytest.raises(DataError) as caught:
        list_(tmp_path / "train")
    assert str(caught.value).endswith(f"got {tmp_path}/train, one of the two. Set data.root={tmp_path}")


@pytest.mark.parametrize(("field", "value", "neutral"), [("test_share", 0.3, "null"), ("split_seed", 5, "0")])
def test_a_field_without_effect_is_refused(field: str, value: float, neutral: str, tmp_path: Path) -> None:
    with pytest.raises(FieldError) as caught:
        list_(make_folder(tmp_path, TWO_SPLITS), **{field: value})
    expected = (
        f"data.{field} must be {neutral}, since {tmp_path} has test images of its own, got {value}. Leave it out."
    )
    assert caught.value.at("data") == expected


@pytest.mark.parametrize("root", ["nowhere", "file"])
def test_a_root_that_is_no_folder(root: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=f"data.root={tmp_path}/{root} must be a folder that can be read, got: (No|Not)"
    ):
        list_(tmp_path / root)
