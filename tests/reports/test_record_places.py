"""Which records a command names, and where a new one may be. Only names decide that, so no record has to be whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from era_cnn.errors import ConfigError, EraCnnError, RunFolderError
from era_cnn.folders.record import RECORD
from era_cnn.reports.marked import block
from era_cnn.reports.record_places import Places, check_place, check_readable, is_record, places_of, whole_path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with records, runs, and what is neither."""
    for name in ("exp/one", "exp/two", "exp/notes", "empty", "waiting", "runs/a", "runs/sweep/0"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / "exp" / name / RECORD).touch()
    (tmp_path / "exp" / "README.md").write_text(block("table"), encoding="utf-8")
    (tmp_path / "waiting" / "README.md").write_text(block("result"), encoding="utf-8")
    (tmp_path / "README.md").write_text(block("networks"), encoding="utf-8")
    for name in ("provenance.json", "status.json"):
        (tmp_path / "runs" / "a" / name).touch()
    (tmp_path / "runs" / "sweep" / "multirun.yaml").touch()
    (tmp_path / "leading").symlink_to("runs/a")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def whole(here: Path, *names: str) -> tuple[Path, ...]:
    return tuple(here / name for name in names)


@pytest.mark.parametrize(
    ("given", "records", "parents", "pages"),
    [
        (["exp"], ["exp/one", "exp/two"], ["exp"], []),
        (["exp/two", "README.md", "exp"], ["exp/two", "exp/one"], ["exp"], ["README.md"]),
        (["exp/notes/../one", "exp/one", "exp/one/../../exp"], ["exp/one", "exp/two"], ["exp"], []),
        (["linked", "exp"], ["linked/one", "linked/two"], ["linked"], []),
    ],
)
def test_each_record_and_page_is_named_once(
    given: list[str], records: list[str], parents: list[str], pages: list[str], here: Path
) -> None:
    (here / "linked").symlink_to("exp")
    found = places_of([Path(each) for each in given])
    assert found == Places(whole(here, *records), whole(here, *parents), whole(here, *pages))


def test_a_link_to_a_record_is_one_of_the_folder_in_which_it_lies(here: Path) -> None:
    (here / "exp" / "linked").symlink_to(here / "elsewhere")
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / RECORD).touch()
    for path in ("exp/linked", "exp/notes/../linked"):
        assert places_of([Path(path)]) == Places((here / "exp" / "linked",), (here / "exp",), ())


def test_a_folder_whose_page_waits_for_records_is_one_of_records(here: Path) -> None:
    for name in ("one", "two"):
        (here / "exp" / name / RECORD).unlink()
    assert places_of([Path("exp")]) == Places((), (here / "exp",), ())


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (["exp", "runs/a"], "runs/a"),
        (["exp/notes", "exp", "empty"], "exp/notes, empty"),
        (["loop", "../{name}/loop"], "loop, ../{name}/loop"),
        (["empty"], "empty"),
        (["."], "."),  # its README.md quotes figures; it would lose them if it were taken for the page of no records
        (["nowhere", "README.md"], "nowhere, README.md"),
    ],
)
def test_what_has_nothing_to_do_with_records_is_refused(given: list[str], got: str, here: Path) -> None:
    with pytest.raises(ConfigError, match=f"^FOLDER .* records, got '?{got.format(name=here.name)}'?. Give one"):
        places_of([Path(each.format(name=here.name)) for each in given])


@pytest.mark.parametrize("to", ["exp/one", "exp/new", "new/new", "empty", "waiting", "elsewhere/../exp/new"])
def test_where_a_record_may_be(to: str, here: Path) -> None:
    check_place(here / to)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("runs/a/new", "^--to must lie outside the folders of runs, which it is to outlast, got '?runs/a/new"),
        ("runs/a/deep/down/new", "^--to must lie outside the folders of runs"),
        ("runs/sweep/0/new", "^--to must lie outside the folders of runs"),
        ("exp/one/new", "^--to must lie outside other records, got '?exp/one/new'?. Give exp/one to add seeds to it, or"),
        ("exp/one/deep/new", "^--to must lie outside other records"),
        ("leading/new", "^--to must lie outside the folders of runs, which it is to outlast, got '?leading/new"),
        ("exp", "^exp must be a record, or a new or empty folder, got a folder of records. Give exp/NAME.$"),
        ("exp/notes/..", "got a folder of records"),
        (".", r"must be a record, or a new or empty folder, got something else. Give another folder with --to.$"),
        ("README.md", "got something else"),
        ("x" * 300, "must be short enough for the file system"),
    ],
)  # fmt: skip
def test_where_no_record_may_be(to: str, message: str, here: Path) -> None:
    with pytest.raises(EraCnnError, match=message):
        check_place(whole_path(Path(to)))


def test_a_file_that_is_called_like_one_of_a_run_does_not_make_it_one(here: Path) -> None:
    (here / "result.json").touch()
    check_place(here / "exp" / "new")


def test_a_folder_that_can_not_be_read_is_no_record_but_keeps_a_page_from_being_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_readable(here / "exp")
    whole = os.lstat

    def denied(path: Path) -> os.stat_result:
        if Path(path).parent.name == "notes":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "lstat", denied)
    assert not is_record(here / "exp" / "notes")
    check_place(here / "exp" / "new")
    rule = "^exp/notes must be readable, since it may hold a record .*, got: Permission denied. Check its permissions.$"
    with pytest.raises(RunFolderError, match=rule):
        check_readable(here / "exp")
