"""Limits of a process, other users, and what a container shows of the machine."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from tests.faults.environments.environment import SOMEBODY, Environment

MIB = 2**20


def _limited(what: int, soft: int, *, hard: bool = False, commands: Sequence[str] = ()) -> Environment:
    def set_up() -> None:
        resource.setrlimit(what, (soft, soft if hard else resource.getrlimit(what)[1]))

    return Environment(set_up=set_up, commands=commands)


def _alone(*namespaces: str, script: str = "", commands: Sequence[str] = ()) -> Environment:
    """In namespaces of its own, after a shell script."""
    return Environment(wrapper=["unshare", *namespaces, "sh", "-c", f'{script}\nexec "$@"', "sh"], commands=commands)


def _as_somebody(home: str | None) -> Environment:
    """As in a container that is given any number as its user."""
    return replace(_alone("--user", f"--map-user={SOMEBODY}"), variables={"HOME": home, "USER": None, "LOGNAME": None})


def _mounted(script: str, commands: Sequence[str] = ()) -> Environment:
    """In a mount namespace of its own."""
    return _alone("--mount", script=f"{script} || exit 99", commands=commands)


def _kept(options: str, commands: Sequence[str] = ("run", "compare")) -> Environment:
    """In a file system that is mounted for the trial, from which the runs are copied at the end."""
    script = f"""
        mount -t tmpfs {options} none PLACE/there && cd PLACE/there || exit 99
        mkdir earlier && mount --bind PLACE/earlier earlier
        "$@"
        code=$?
        cp -r outputs multirun PLACE/ 2> /dev/null
        exit $code
    """
    return Environment(
        wrapper=["unshare", "--mount", "sh", "-c", script, "sh"],
        prepare=lambda place: (place / "there").mkdir(),
        commands=commands,
    )


def _prctl(option: int, value: int) -> Environment:
    return Environment(set_up=lambda: ctypes.CDLL(None).prctl(option, value, 0, 0, 0))


LIMITS: dict[str, Environment] = {
    **{f"umask {mask:03o}": Environment(set_up=lambda mask=mask: os.umask(mask)) for mask in (0, 0o27, 0o77, 0o277, 0o777)},  # type: ignore[misc]
    "64 open files": _limited(resource.RLIMIT_NOFILE, 64),
    "32 open files": _limited(resource.RLIMIT_NOFILE, 32),
    "no core dumps": _limited(resource.RLIMIT_CORE, 0),
    "a stack of 1 MiB": _limited(resource.RLIMIT_STACK, MIB),
    "files of at most 1 MiB": _limited(resource.RLIMIT_FSIZE, MIB),
    "files of at most 10 KiB": _limited(resource.RLIMIT_FSIZE, 10 * 1024),
    "1 GiB of addresses": _limited(resource.RLIMIT_AS, 1024 * MIB, commands=["run", "models"]),
    "the last processor alone": Environment(set_up=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})),
    "under nohup": Environment(wrapper=["nohup"], is_loud=True),
    "under timeout": Environment(wrapper=["timeout", "170"]),
}  # fmt: skip

CAN_MOUNT = (
    os.geteuid() == 0
    and shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
)
if CAN_MOUNT:
    LIMITS |= {
        "a file system in memory": _kept(""),
        "a full file system": _kept("-o size=4k"),
        "a file system that fills up": _kept("-o size=100k", ["run"]),
        "a file system without inodes": _kept("-o nr_inodes=4"),
        "a file system without programs": _kept("-o noexec,nosuid,nodev"),
        "a file system that can only be read": _kept("-o ro"),
        "a folder that is mounted to be read": _mounted(
            "mount --bind PLACE/earlier PLACE/earlier && mount -o remount,ro,bind PLACE/earlier", ["resume", "replay", "compare"]
        ),
        "no /dev/shm": _mounted("mount -t tmpfs -o ro none /dev/shm", ["run", "sweep"]),
        "a small /dev/shm": _mounted("mount -t tmpfs -o size=4k none /dev/shm", ["run", "sweep"]),
        "no /etc/passwd": _mounted("mount --bind /dev/null /etc/passwd"),
        "the first process of a container": _alone("--pid", "--fork", "--mount-proc"),
        "no network": _alone("--net", commands=["run", "sweep", "mnist"]),
        "a user without a name": _as_somebody("PLACE/home"),
        "a user without a name or a home": _as_somebody(None),
        "nobody in a container": _alone("--user", commands=["run", "sweep", "compare"]),
        "root in a container": _alone("--user", "--map-root-user", "--mount", commands=["run", "sweep"]),
    }  # fmt: skip
