"""The disk as a run sees it: every operation on a folder can be counted, refused, or be the last one.

What a file system may lose when power fails (Pillai et al., OSDI 2014) is modelled at its worst: of what was not
synchronised, half of each file's bytes are missing; and a name that was given since its folder was synchronised may be
there (`names="kept"`) or not (`names="lost"`).
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Phase = Literal["before", "half-way", "after"]
Act = Callable[["Disk", str, Path, Phase], None]


class Disk:
    """Watches what this process does within a folder. `act` is told of each operation, and may raise or kill."""

    def __init__(self, root: Path, act: Act) -> None:
        self.root, self.act, self.count = Path(os.path.realpath(root)), act, 0
        self.operations: list[str] = []
        self.unsynced: set[Path] = set()
        self.renamed: list[tuple[Path, Path, bytes | None]] = []
        self.open, self.fsync, self.replace, self.unlink = builtins.open, os.fsync, os.replace, os.unlink

    def install(self) -> None:
        """Puts itself between Python and the operating system, for the rest of this process."""
        builtins.open = io.open = self._open  # type: ignore[assignment]
        os.fsync, os.replace, os.rename, os.unlink = self._fsync, self._replace, self._replace, self._unlink  # type: ignore[assignment]

    def _is_watched(self, path: object) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return Path(os.path.realpath(path)).is_relative_to(self.root)

    def _operation(self, kind: str, path: Path, do: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        self.count += 1
        self.operations.append(f"{kind} {path.name}")
        self.act(self, kind, path, "before")
        if half is not None:
            half()
            self.act(self, kind, path, "half-way")
        done = do()
        self.act(self, kind, path, "after")
        return done

    def _open(self, path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not self._is_watched(path) or not set(mode) & set("wax+"):
            return self.open(path, mode, *args, **options)
        real = Path(os.path.realpath(path))
        file = self._operation("open", real, lambda: self.open(path, mode, *args, **options))
        return _WatchedFile(file, real, self)

    def _fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not path.is_relative_to(self.root):
            return self.fsync(descriptor)
        self._operation("fsync", path, lambda: self.fsync(descriptor))
        self.unsynced.discard(path)
        self.renamed = [each for each in self.renamed if each[1].parent != path]
        return None

    def _replace(self, old: Any, new: Any) -> None:
        if not self._is_watched(new):
            return self.replace(old, new)
        source, target = Path(os.path.realpath(old)), Path(os.path.realpath(new))
        lost = target.read_bytes() if target.exists() else None
        self._operation("rename", target, lambda: self.replace(old, new))
        self.renamed.append((source, target, lost))
        if source in self.unsynced:
            self.unsynced ^= {source, target}
        return None

    def _unlink(self, path: Any, **options: Any) -> None:
        if not self._is_watched(path):
            return self.unlink(path, **options)
        self._operation("unlink", Path(os.path.realpath(path)), lambda: self.unlink(path, **options))
        return None

    def cut_power(self, names: Literal["kept", "lost"]) -> None:
        """Leaves what a disk may hold after a power cut, and ends the process."""
        for path in self.unsynced:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        if names == "lost":
            for source, target, lost in reversed(self.renamed):
                if target.exists():
                    self.replace(target, source)
                if lost is not None:
                    with self.open(target, "wb") as file:
                        file.write(lost)
        os.kill(os.getpid(), signal.SIGKILL)


class _WatchedFile:
    def __init__(self, file: Any, path: Path, disk: Disk) -> None:
        self._file, self._path, self._disk = file, path, disk

    def write(self, content: Any) -> Any:
        def write_half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            self._disk.unsynced.add(self._path)

        def write_rest() -> Any:
            self._file.write(content[len(content) // 2 :])
            self._file.flush()
            return len(content)

        return self._disk._operation("write", self._path, write_rest, write_half)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _WatchedFile:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()


def last_at(number: int, phase: Phase) -> Act:
    """Kills the process at its n-th operation."""

    def act(disk: Disk, kind: str, path: Path, now: Phase) -> None:
        if disk.count == number and now == phase:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def power_cut_at(number: int, phase: Phase, names: Literal["kept", "lost"]) -> Act:
    """Cuts the power at the n-th operation."""

    def act(disk: Disk, kind: str, path: Path, now: Phase) -> None:
        if disk.count == number and now == phase:
            disk.cut_power(names)

    return act


def refuse(number: int, code: int, *, forever: bool) -> Act:
    """Fails the n-th operation with an error code of the operating system; from then on all, if it is to be forever."""

    def act(disk: Disk, kind: str, path: Path, now: Phase) -> None:
        has_room = kind == "unlink" and code == errno.ENOSPC  # a full disk lets files go
        if (disk.count == number or (forever and disk.count > number and not has_room)) and now in (
            "before",
            "half-way",
        ):
            raise OSError(code, os.strerror(code), str(path))

    return act


def write_down(path: Path) -> Act:
    """Only keeps the list of operations, in a file."""

    def act(disk: Disk, kind: str, target: Path, now: Phase) -> None:
        with disk.open(path, "w") as file:
            file.write("\n".join(disk.operations))

    return act
