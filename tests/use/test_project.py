"""A project from the template: its files, its names, and that it works."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import yaml

from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.use.project import create, requirement
from tests.helpers import nothing_stays_registered

FILES = {
    ".github/workflows/ci.yml",
    ".gitignore",
    "Makefile",
    "README.md",
    "blocks.py",
    "conf/experiment/my_digits.yaml",
    "conf/model/my_digits.yaml",
    "tests/test_blocks.py",
}


def test_all_files_are_written_and_named_after_the_project(tmp_path: Path) -> None:
    folder = tmp_path / "My-Digits"
    assert set(create(folder)) == FILES
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == FILES
    for path in FILES:
        assert not re.search(r"PROJECT|REQUIREMENT", (folder / path).read_text(encoding="utf-8")), path
    workflow = (folder / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "${{ matrix.python }}" in workflow
    assert yaml.safe_load(workflow)["jobs"]["check"]["steps"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", "The name of the folder must begin with a letter"),
        ("naïve", "The name of the folder must begin with a letter"),
        ("model_4", "The name of the folder must not be that of an experiment"),
        ("full", "must be new or empty, got a folder with files"),
        ("file", "must be a folder that can be created, got "),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_and_left_alone(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ConfigError, RunFolderError), match=message):
        create(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_its_experiment_keeps_its_target(command, tmp_path: Path) -> None:
    assert command("new", "mine")[0] == 0
    with nothing_stays_registered():
        code, text, err = command("--config-dir", "mine/conf", "--plugin", "mine/blocks.py", "models", "--check")
    assert (code, err) == (0, "")
    assert "none misses its target" in text
    assert command("new", "mine")[0] == 4


INSTALLED = {
    "from an index": (None, "era_cnn==0.1.0"),
    "from a repository": (
        '{"url": "https://x.org/era_cnn.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
        "git+https://x.org/era_cnn.git@abc",
    ),
    "from a checkout": ('{"url": "file:///home/me/my%20%24code", "dir_info": {"editable": true}}', "/home/me/my $$code"),
    "from a wheel": ('{"url": "file:///tmp/era_cnn-1.whl", "archive_info": {}}', "/tmp/era_cnn-1.whl"),
    "from a wheel elsewhere": ('{"url": "https://x.org/era_cnn-1.whl", "archive_info": {}}', "https://x.org/era_cnn-1.whl"),
    "as nobody knows": ("[]", "era_cnn==0.1.0"),
    "damaged": ("{", "era_cnn==0.1.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", INSTALLED)
def test_it_installs_era_cnn_from_where_it_came(case: str, command, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = INSTALLED[case]
    monkeypatch.setattr(
        "era_cnn.use.project.metadata.distribution", lambda name: SimpleNamespace(read_text=lambda _: text)
    )
    code, out, _ = command("new", "mine")
    assert code == 0
    assert f"\nERA_CNN ?= {expected}\n" in Path("mine/Makefile").read_text(encoding="utf-8")
    assert ("To install it elsewhere" in out) == expected.startswith("/")


def test_without_its_metadata_it_is_installed_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> NoReturn:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("era_cnn.use.project.metadata.distribution", refuse)
    assert requirement() == "era_cnn==0.1.0"


@pytest.mark.process
def test_its_own_tests_pass(tmp_path: Path) -> None:
    create(tmp_path / "mine")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "mine",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
