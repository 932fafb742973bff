"""Creates a project of one's own: config groups, a block, a test, a Makefile and a CI file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import era_cnn
from era_cnn.compose.composition import experiments
from era_cnn.compose.words import Words
from era_cnn.errors import ConfigError, RunFolderError, problem
from era_cnn.folders.storage import write_atomically

if TYPE_CHECKING:
    from importlib.abc import Traversable

SUFFIX = ".txt"
"""Of the template's files, so that no tool takes them for code of this package."""

DOT = "dot_"
"""Stands for the dot of a hidden name, which would not travel in a wheel."""


def create(folder: Path) -> list[str]:
    """Writes the files of a project into a new or empty folder; returns their paths in it.

    The experiment and the model are named after the folder, in lower case and with underscores.

    Raises:
        ConfigError: If no name can be made of it, or an experiment has that name already.
        RunFolderError: If the folder is not empty, or can't be created.
        StorageError: If a file can't be written.
    """
    name = name_of(folder)
    values = {"PROJECT": name, "REQUIREMENT": _in_make(requirement())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunFolderError(f"{folder} must be new or empty, got a folder with files. Choose another one.")
    except OSError as error:
        got = error.strerror or str(error)
        raise RunFolderError(
            f"{folder} must be a folder that can be created, got {got}. Choose another one."
        ) from error
    written = []
    for path, text in sorted(_template(resources.files("era_cnn.use") / "project", "")):
        path, text = _filled(path, values), _filled(text, values)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / path, text.encode())
        written.append(path)
    return written


def requirement() -> str:
    """Where pip can install era_cnn from, as it was installed here: an address with a commit, a path, or a version."""
    version = f"era_cnn=={era_cnn.__version__}"
    try:
        origin = json.loads(metadata.distribution("era_cnn").read_text("direct_url.json") or "{}")  # PEP 610
        url = str(origin.get("url", ""))
        if "vcs_info" in origin:
            return f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return version
    if not url.startswith("file:"):
        return url or version
    return url2pathname(urlsplit(url).path)


def is_local(source: str) -> bool:
    """Whether a requirement is a path of this machine."""
    return os.path.isabs(source)


def _in_make(text: str) -> str:
    return text.replace("$", "$$").replace("#", "\\#")


def name_of(folder: Path) -> str:
    """The name of the experiment and of the model."""
    name = re.sub(r"[- ]", "_", Path(os.path.abspath(folder)).name.lower())
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        rule = "begin with a letter and hold only letters, digits, - and _"
        raise ConfigError([problem("The name of the folder", rule, folder.name, "Choose another one.")])
    if name in experiments(Words()):
        rule = "not be that of an experiment of era_cnn"
        raise ConfigError([problem("The name of the folder", rule, name, "Choose another one.")])
    return name


def _template(folder: Traversable, path: str) -> Iterator[tuple[str, str]]:
    """The path of each file in the project, with its content, before names are filled in."""
    for entry in folder.iterdir():
        name = re.sub(f"^{DOT}", ".", entry.name)
        if entry.is_dir():
            yield from _template(entry, f"{path}{name}/")
        elif name.endswith(SUFFIX):
            yield f"{path}{name.removesuffix(SUFFIX)}", entry.read_text(encoding="utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\b(PROJECT|REQUIREMENT)\b", lambda found: values[found[1]], text)
