"""Reads the git checkout that the code was imported from: commit, changes and new files.

git is called so that the answer does not depend on the user's settings for display. The settings that decide whom to
trust (`safe.directory`) and what a file's content is (filters, line endings) keep their meaning.
"""

from __future__ import annotations

import base64
import os
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from era_cnn.runs.collector import Collector, NotCollectedError

SECONDS = 30.0
"""How long to wait for an answer from git."""

MAX_BYTES = 2**20
"""The most bytes of the diff, and of a new file, that are recorded."""

_SETTINGS = (
    "core.quotePath=false",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "diff.relative=false",
    "diff.suppressBlankEmpty=false",
)

_DIFF = (
    *("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--unified=3"),
    *("--inter-hunk-context=0", "--src-prefix=a/", "--dst-prefix=b/", "-O/dev/null", "--submodule=short"),
)

_NEW_FILES = ("*.py", "../conf/*.yaml")
"""The new files to record, relative to the package: those that a run can use. Others may hold secrets."""


def read_checkout(package_dir: Path, collector: Collector) -> dict[str, Any] | None:
    """The checkout of a package; None if it is in none, or if git refuses to read it, which the collector then holds.

    `git apply` of the recorded diff to the recorded commit gives the same files, byte for byte. Content that is not
    UTF-8 is recorded as {"base64": …}, a new link as {"link": target}.
    """
    if not any(os.path.lexists(folder / ".git") for folder in (package_dir, *package_dir.parents)):
        return None
    git = Git(package_dir)
    top = collector.get("git", _top, git)
    if top is None:
        return None
    commit = collector.get("git commit", _commit, git)
    return {
        "commit": commit,
        "diff": collector.get("git diff", _diff, git, commit, top, collector),
        "untracked": collector.get("new files", _new_files, git, top, collector),
    }


class Git:
    """Calls git in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *words: str) -> bytes:
        """The output of a git command.

        Raises:
            NotCollectedError: If git is not installed, refuses, hangs, or answers too much.
        """
        command = ["git", "--no-pager", *(word for each in _SETTINGS for word in ("-c", each)), *words]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise NotCollectedError("git is not installed") from None
            code = _wait(process, out, err)
            out.seek(0)
            err.seek(0)
            for stream in (out, err):
                _check_size(os.fstat(stream.fileno()).st_size)
            if code is None:
                raise NotCollectedError(f"git {words[0]} did not end within {SECONDS:.0f} seconds")
            if code:
                said = " ".join(err.read(1_000).decode(errors="backslashreplace").split())
                raise NotCollectedError(said or f"git {words[0]} ended with {code}")
            return out.read()


def _wait(process: subprocess.Popen[bytes], *streams: IO[bytes]) -> int | None:
    """The exit code of a process; None if it had to be killed, with the filters that it had started.

    It is killed if it takes too long, or soon after it has written more to one of its streams than is recorded.
    """
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline and all(os.fstat(each.fileno()).st_size <= MAX_BYTES for each in streams):
            with suppress(subprocess.TimeoutExpired):
                return process.wait(0.1)
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment() -> dict[str, str]:
    """The environment without what points git elsewhere, as within a hook; the configuration stays, with its trust."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "CONFIG" in name}
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}


def _top(git: Git) -> Path | None:
    """The top folder of the checkout; None if the package is only installed in it, as in a virtual environment."""
    if git("rev-parse", "--is-inside-work-tree") != b"true\n":  # in a bare repository, git lists no files, and succeeds
        raise NotCollectedError("git says that this is no work tree")
    if not git("ls-files", "--", "__init__.py"):
        return None
    return Path(os.fsdecode(git("rev-parse", "--show-toplevel").removesuffix(b"\n")))


def _commit(git: Git) -> str:
    try:
        return git("rev-parse", "--verify", "HEAD").decode().strip()
    except NotCollectedError as error:
        raise NotCollectedError(f"there is none, so the diff holds all files ({error})") from error


def _diff(git: Git, commit: str | None, top: Path, collector: Collector) -> str | dict[str, str]:
    base = commit or git("hash-object", "-t", "tree", "--stdin").decode().strip()  # the empty tree
    if (top / ".gitmodules").exists():
        for name in sorted(_changed(git, base, "none") - _changed(git, base, "dirty")):
            collector.missing.append(f"git diff: changes within the submodule {name}")
    return _as_json(git("diff", *_DIFF, "--ignore-submodules=dirty", base, "--", ":/"))


def _changed(git: Git, base: str, ignored_submodules: str) -> set[str]:
    options = ("--name-only", "-z", "-O/dev/null", f"--ignore-submodules={ignored_submodules}")
    changed = git("diff", *options, base, "--", ":/")
    return set(os.fsdecode(changed).split("\0"))


def _new_files(git: Git, top: Path, collector: Collector) -> dict[str, Any]:
    listed = git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", *_NEW_FILES)
    names = os.fsdecode(listed).split("\0")[:-1]
    return {name: collector.get(f"new file {name}", _content, top / name) for name in names}


def _content(path: Path) -> Any:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):  # an editor's lock is a link to nowhere
        return {"link": os.readlink(path)}
    if not stat.S_ISREG(status.st_mode):
        raise NotCollectedError("not a plain file")
    _check_size(status.st_size)
    return _as_json(path.read_bytes())


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise NotCollectedError(f"{size_bytes:,} bytes are more than {MAX_BYTES:,}")


def _as_json(content: bytes) -> str | dict[str, str]:
    """Bytes as a string, if it is the same in every JSON library; otherwise in base64."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
