"""Odd environments: places, paths, terminals, encodings, owners, checkouts and limits of a process.

Each is a command in a new interpreter, as a user starts it. After it: no traceback, no hang, an exit code that has a
meaning, one message if it was refused, and then nothing left behind; a run that completes has the weights of the run in
an ordinary environment.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import era_cnn
from tests.faults.campaigns import workplace
from tests.faults.harness import RUN, Report, once

TIMEOUT_SECONDS = 180.0
SOMEBODY = 12345
PACKAGE = Path(era_cnn.__file__).parents[1]

ONE_EPOCH = once([*RUN, "trainer.limit_epochs=1"])
COMMANDS: dict[str, Sequence[str]] = {
    "run": ONE_EPOCH,
    "sweep": ["-m", *ONE_EPOCH, "seed=1,2", "hydra/launcher=local"],
    "resume": ["resume", "earlier/completed"],
    "replay": ["replay", "earlier/completed", "--epochs", "1"],
    "compare": ["compare", "earlier/completed", "earlier/sweep"],
    "models": ["models"],
    "describe": ["describe", "experiment=model_3"],
    "help": ["--help"],
    "mnist": ["data=mnist"],
}
"""Given in a folder that holds `earlier/`, with runs of an earlier version."""


@dataclass(frozen=True)
class Environment:
    """What is odd. `prepare` is given the folder of the trial, and makes what the rest speaks of.

    In `variables`, `words` and `where`, PLACE is the folder of the trial; a variable that is None is removed.
    """

    variables: dict[str, str | None] = field(default_factory=dict)
    words: Sequence[str] = ()
    where: str = "PLACE"
    prepare: Callable[[Path], object] = lambda place: None
    set_up: Callable[[], object] = lambda: None
    closed: Sequence[int] = ()
    commands: Sequence[str] = ()
    """Only these; otherwise a run, and two of the others in turn."""


def _in_checkout(*git: Sequence[str], then: Callable[[Path], object] = lambda top: None) -> Environment:
    """The package in a checkout of its own, in which commands of git and more were carried out."""

    def prepare(place: Path) -> None:
        top = place / "checkout"
        for name in ("era_cnn", "conf"):
            shutil.copytree(PACKAGE / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        for command in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "x"], *git):
            subprocess.run(["git", *command], cwd=top, check=True, capture_output=True)
        then(top)

    return Environment({"PYTHONPATH": "PLACE/checkout"}, prepare=prepare, commands=["run"])


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _without_privileges() -> None:
    """Lets permissions hold for root as well, from the start of the command on."""
    prctl, drop = ctypes.CDLL(None, use_errno=True).prctl, 24  # PR_CAPBSET_DROP
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if prctl(drop, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "privileges can't be dropped")


def _shut(path: Path, mode: int = 0, owner: int = -1) -> None:
    path.mkdir(exist_ok=True)
    os.chown(path, owner, owner)
    path.chmod(mode)


def _limited(what: int, soft: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))


def _removed(place: Path) -> None:
    (place / "gone").mkdir()


def _fake_git(script: str) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        _write(place / "bin" / "git", f"#!/bin/sh\n{script}\n".encode())
        (place / "bin" / "git").chmod(0o755)

    return prepare


def _variables(commands: Sequence[str] = (), /, **variables: str | None) -> Environment:
    return Environment(dict(variables), commands=commands)


def _run_dir(value: str, prepare: Callable[[Path], object] = lambda place: None) -> Environment:
    return Environment(words=[f"hydra.run.dir={value}"], prepare=prepare, commands=["run"])


LONG = "x" * 300

ENVIRONMENTS: dict[str, Environment] = {
    # Places
    "a folder with spaces": Environment(where="PLACE/a b c", prepare=lambda place: (place / "a b c").mkdir()),
    "a folder with umlauts": Environment(where="PLACE/äöü", prepare=lambda place: (place / "äöü").mkdir()),
    "a folder that is not UTF-8": Environment(
        where="PLACE/a\udcffb", prepare=lambda place: os.mkdir(os.fsencode(place) + b"/a\xffb")
    ),
    "a folder with a line break": Environment(where="PLACE/a\nb", prepare=lambda place: (place / "a\nb").mkdir()),
    "a folder with a quote": Environment(where="PLACE/a'b\"c", prepare=lambda place: (place / "a'b\"c").mkdir()),
    "a deep folder": Environment(
        where="PLACE/" + "/".join(["d" * 100] * 8), prepare=lambda place: (place / "/".join(["d" * 100] * 8)).mkdir(parents=True)
    ),
    "a folder that is gone": Environment(prepare=_removed, set_up=lambda: (os.chdir("gone"), os.rmdir("../gone"))),
    "a folder in which nothing can be created": Environment(where="/proc/self/fdinfo", commands=["run", "models", "sweep"]),
    # Folders of runs
    "run in ~": _run_dir("'~/run'"),
    "run in $HOME": _run_dir("'$HOME/run'"),
    "run in quotes": _run_dir("\"'quoted'\""),
    "run in the home of nobody": _run_dir("'~nobody-there/run'"),
    "run below a link to nothing": _run_dir("link/run", lambda place: (place / "link").symlink_to(place / "nothing")),
    "run in a link to nothing": _run_dir("link", lambda place: (place / "link").symlink_to(place / "nothing")),
    "run below a link to itself": _run_dir("link/run", lambda place: (place / "link").symlink_to("link")),
    "run in /proc": _run_dir("/proc/self/run"),
    "run below a device": _run_dir("/dev/null/run"),
    "run below a file": _run_dir("file/run", lambda place: _write(place / "file", b"")),
    "run in a file": _run_dir("file", lambda place: _write(place / "file", b"")),
    "run with a long name": _run_dir(LONG),
    "run with a long path": _run_dir("/".join(["x" * 100] * 60)),
    "run in .": _run_dir("."),
    "run in ..": _run_dir(".."),
    "run in an empty name": _run_dir("''"),
    "run with a line break": _run_dir("'a\nb'"),
    "run with a zero byte written out": _run_dir("'a\\0b'"),
    "run in a pipe": _run_dir("pipe/run", lambda place: os.mkfifo(place / "pipe")),
    "run in umlauts": _run_dir("'läufe/ö'"),
    # Data
    **{
        f"data in {name}": Environment({"ERA_CNN_DATA": value, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}, prepare=prepare, commands=["mnist", "run"])
        for name, value, prepare in (
            ("~", "~/data", lambda place: None), ("$HOME", "$HOME/data", lambda place: None), ("quotes", "'data'", lambda place: None),
            ("a file", "PLACE/file", lambda place: _write(place / "file", b"")), ("nothing", "", lambda place: None),
            ("a long name", LONG, lambda place: None), ("a link to nothing", "PLACE/link", lambda place: (place / "link").symlink_to("nothing")),
            ("a device", "/dev/null", lambda place: None), ("a missing folder", "PLACE/missing", lambda place: None),
        )
    },
    # Temporary files
    "TMPDIR of 80 characters": Environment(
        {"TMPDIR": "PLACE/" + "t" * 80}, prepare=lambda place: (place / ("t" * 80)).mkdir(), commands=["run", "sweep"]
    ),
    "TMPDIR of 200 characters": Environment(
        {"TMPDIR": "PLACE/" + "t" * 200}, prepare=lambda place: (place / ("t" * 200)).mkdir(), commands=["run", "sweep"]
    ),
    "TMPDIR missing": _variables(["run", "sweep"], TMPDIR="PLACE/missing"),
    "TMPDIR a file": Environment(
        {"TMPDIR": "PLACE/file"}, prepare=lambda place: _write(place / "file", b""), commands=["run", "sweep"]
    ),
    "TMPDIR in umlauts": Environment(
        {"TMPDIR": "PLACE/tmp ä"}, prepare=lambda place: (place / "tmp ä").mkdir(), commands=["run", "sweep"]
    ),
    # Encodings and terminals
    **{
        f"PYTHONIOENCODING={name}": _variables(PYTHONIOENCODING=name)
        for name in ("ascii", "iso-8859-1", "iso-8859-2", "cp1252", "koi8-r", "utf-16", "ascii:strict", "utf-8:strict", "big5")
    },
    "LC_ALL=C without UTF-8 mode": _variables(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "LC_ALL=POSIX": _variables(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "LC_ALL=nonsense": _variables(LC_ALL="xx_YY.nonsense"),
    "UTF-8 mode": _variables(PYTHONUTF8="1"),
    "COLUMNS=0": _variables(COLUMNS="0"),
    "COLUMNS=1": _variables(COLUMNS="1"),
    "COLUMNS=nonsense": _variables(COLUMNS="x", LINES="-1"),
    "TERM missing": _variables(TERM=None),
    "TERM=dumb": _variables(TERM="dumb"),
    "no standard input": Environment(closed=[0]),
    "no standard output": Environment(closed=[1]),
    "no standard error": Environment(closed=[2]),
    "no streams": Environment(closed=[0, 1, 2]),
    # Homes and users
    "no HOME": _variables(HOME=None),
    "HOME missing": _variables(HOME="PLACE/missing"),
    "HOME a file": Environment({"HOME": "PLACE/file"}, prepare=lambda place: _write(place / "file", b"")),
    "XDG_CACHE_HOME a file": Environment({"XDG_CACHE_HOME": "PLACE/file"}, prepare=lambda place: _write(place / "file", b"")),
    "no PATH": _variables(PATH=None),
    "no variables": _variables(**dict.fromkeys(os.environ)),
    # Hydra's and other libraries' variables
    "HYDRA_FULL_ERROR": _variables(["run", "describe", "help"], HYDRA_FULL_ERROR="1", OC_CAUSE="1"),
    "OMP_NUM_THREADS=nonsense": _variables(OMP_NUM_THREADS="x"),
    "OMP_NUM_THREADS=0": _variables(OMP_NUM_THREADS="0"),
    "OMP_DYNAMIC": _variables(OMP_DYNAMIC="true"),
    "CUDA_VISIBLE_DEVICES": _variables(CUDA_VISIBLE_DEVICES="7"),
    "PYTHONOPTIMIZE": _variables(PYTHONOPTIMIZE="2"),
    "PYTHONDONTWRITEBYTECODE": _variables(PYTHONDONTWRITEBYTECODE="1"),
    "PYTHONHASHSEED": _variables(PYTHONHASHSEED="0"),
    # umask and limits
    **{f"umask {mask:03o}": Environment(set_up=lambda mask=mask: os.umask(mask)) for mask in (0, 0o27, 0o77, 0o277)},  # type: ignore[misc]
    "64 open files": Environment(set_up=_limited(resource.RLIMIT_NOFILE, 64)),
    "no core dumps": Environment(set_up=_limited(resource.RLIMIT_CORE, 0)),
    "a stack of 1 MiB": Environment(set_up=_limited(resource.RLIMIT_STACK, 2**20)),
    "files of at most 1 MiB": Environment(set_up=_limited(resource.RLIMIT_FSIZE, 2**20)),
    "SIGHUP ignored": Environment(set_up=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)),
    "SIGPIPE as in a shell": Environment(set_up=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL)),
    "a session of its own": Environment(set_up=os.setsid),
    # Checkouts
    "a checkout": _in_checkout(),
    "a checkout with a change": _in_checkout(then=lambda top: _write(top / "era_cnn" / "errors.py", (top / "era_cnn" / "errors.py").read_bytes() + b"# x\n")),
    "a checkout with Latin-1": _in_checkout(then=lambda top: _write(top / "conf" / "note.txt", b"\xe4\xf6")),
    "a checkout with a name in umlauts": _in_checkout(then=lambda top: _write(top / "era_cnn" / "ä ö.txt", b"x")),
    "a checkout with a name that is not UTF-8": _in_checkout(then=lambda top: _write(Path(os.fsdecode(os.fsencode(top) + b"/era_cnn/\xff.txt")), b"x")),
    "a checkout with an editor's lock": _in_checkout(then=lambda top: (top / "era_cnn" / ".#errors.py").symlink_to("me@here.123")),
    "a checkout with a pipe": _in_checkout(then=lambda top: os.mkfifo(top / "era_cnn" / "pipe")),
    "a checkout with colours": _in_checkout(["config", "color.ui", "always"], ["config", "color.diff", "always"]),
    "a checkout with an external diff": _in_checkout(["config", "diff.external", "false"]),
    "a checkout with a pager": _in_checkout(["config", "core.pager", "false"], ["config", "pager.diff", "true"]),
    "a checkout without commits": _in_checkout(["update-ref", "-d", "HEAD"]),
    "a checkout with a broken HEAD": _in_checkout(then=lambda top: _write(top / ".git" / "HEAD", b"nonsense\n")),
    "a checkout with a broken index": _in_checkout(then=lambda top: _write(top / ".git" / "index", b"nonsense\n")),
    "git fails": Environment({"PATH": "PLACE/bin:/usr/bin:/bin"}, prepare=_fake_git("exit 128"), commands=["run"]),
    "git says nonsense": Environment({"PATH": "PLACE/bin:/usr/bin:/bin"}, prepare=_fake_git("head -c 1000 /dev/urandom"), commands=["run"]),
    "git never answers": Environment({"PATH": "PLACE/bin:/usr/bin:/bin"}, prepare=_fake_git("exec sleep 1000"), commands=["run"]),
    "GIT_DIR elsewhere": _variables(["run"], GIT_DIR="/nonexistent", GIT_WORK_TREE="/nonexistent"),
}  # fmt: skip

if os.geteuid() == 0:
    ENVIRONMENTS |= {
        "a folder that is not ours": Environment(
            where="PLACE/own",
            prepare=lambda place: _shut(place / "own", 0o755, SOMEBODY),
            set_up=_without_privileges,
            commands=["run", "sweep", "models", "help"],
        ),
        "a folder that can't be read": Environment(
            prepare=lambda place: _shut(place / "shut"),
            words=["hydra.run.dir=shut/run"],
            set_up=_without_privileges,
            commands=["run"],
        ),
        "a checkout of another owner": _in_checkout(
            then=lambda top: subprocess.run(["chown", "-R", str(SOMEBODY), top], check=True)
        ),
        "runs that can't be read": Environment(
            prepare=lambda place: _shut(place / "earlier" / "completed"),
            set_up=_without_privileges,
            commands=["resume", "replay", "compare"],
        ),
        "files of runs that can't be read": Environment(
            prepare=lambda place: (place / "earlier" / "completed" / "config.yaml").chmod(0),
            set_up=_without_privileges,
            commands=["resume", "replay", "compare"],
        ),
    }


def _trials() -> Iterator[tuple[str, str]]:
    """The name of an environment, and that of a command."""
    others = itertools.cycle(name for name in COMMANDS if name not in ("run", "mnist"))
    for name, environment in ENVIRONMENTS.items():
        for command in environment.commands or ("run", next(others), next(others)):
            yield name, command


def environments(trials: int | None = None, *, workers: int = 2, only: str = "") -> Report:
    """Each command in each environment."""
    chosen = [trial for trial in _trials() if only in trial[0]][:trials]
    report = Report(figures={"environments": len(ENVIRONMENTS), "refused": 0, "carried out": 0})
    with workplace() as where, ThreadPoolExecutor(workers) as pool:
        where.chmod(0o755)
        ordinary = _Trial(where / "ordinary", Environment(), "run")
        ordinary.carry_out()
        expected = ordinary.weights()
        assert len(expected) == 1, ordinary.err

        def attempt(numbered: tuple[int, tuple[str, str]]) -> _Trial:
            number, (name, command) = numbered
            trial = _Trial(where / str(number), ENVIRONMENTS[name], command)
            trial.carry_out()
            return trial

        for (name, command), trial in zip(chosen, pool.map(attempt, enumerate(chosen)), strict=True):
            report.tried += 1
            report.figures["carried out" if trial.code == 0 else "refused"] += 1
            report.failures += [f"{command} in {name}: {each}" for each in trial.wrong(expected)]
            shutil.rmtree(trial.place, ignore_errors=True)
    return report


@dataclass
class _Trial:
    place: Path
    environment: Environment
    command: str
    code: int = -1
    err: str = ""
    out: str = ""
    before: frozenset[str] = frozenset()

    def carry_out(self) -> None:
        self.place.mkdir()
        self.place.chmod(0o777)
        earlier = Path(__file__).parents[1] / "folders" / "schema_1"
        shutil.copytree(earlier, self.place / "earlier")
        for path in [self.place / "earlier", *(self.place / "earlier").rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        self.environment.prepare(self.place)
        self.before = self._names()
        variables: dict[str, str | None] = {
            **os.environ, "ERA_CNN_DATA": None, "HOME": str(self.place / "home"),
            **{name: self._here(value) if value else value for name, value in self.environment.variables.items()},
        }  # fmt: skip
        words = [*COMMANDS[self.command], *map(self._here, self.environment.words)]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "era_cnn", *words],
                cwd=self._here(self.environment.where),
                env={name: value for name, value in variables.items() if value is not None},
                preexec_fn=self._begin,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            self.code, self.err = -signal.SIGKILL, str(error)
            return
        except (OSError, subprocess.SubprocessError) as error:  # it can't be started like this
            self.err = repr(error)
            return
        self.code, self.out, self.err = done.returncode, _decoded(done.stdout), _decoded(done.stderr)

    def weights(self) -> set[str]:
        """The digests of the weights of the runs with seed 1 that were completed in this place."""
        paths = [path for path in self.place.rglob("result.json") if "earlier" not in path.parts]
        results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return {result["weights_sha256"] for result in results if result["seed"] == 1}

    def wrong(self, expected: set[str]) -> Iterator[str]:
        if self.code == -signal.SIGKILL:
            yield f"did not end: {self.err[-300:]}"
        elif self.code not in (0, 1, 2, 3, 4):
            yield f"ended with {self.code}: {self.err[-500:]}"
        if "Traceback" in self.out + self.err:
            yield f"a traceback: {(self.out + self.err)[-800:]}"
        is_silent = 2 in self.environment.closed
        if self.code and not is_silent and not 1 <= len(self.err.strip().splitlines()) <= 4:
            yield f"not one message with code {self.code}: {self.err[-500:]!r}"
        if self.code in (2, 3, 4) and (left := self._names() - self.before):
            yield f"left behind {', '.join(sorted(left))[:300]} with code {self.code}"
        if any(name.startswith(("~", "$", "'", '"')) for name in self._names() - self.before):
            yield "a folder whose name was not expanded"
        has_run = self.code == 0 and self.command == "run" and self.environment.where != "/proc/self/fdinfo"
        if has_run and (found := self.weights()) != expected:
            yield f"other weights: {found or 'none'}"

    def _begin(self) -> None:
        self.environment.set_up()
        for descriptor in self.environment.closed:
            os.close(descriptor)

    def _here(self, text: str) -> str:
        return text.replace("PLACE", str(self.place))

    def _names(self) -> frozenset[str]:
        """The names of all that lies in the place; a cache of Python's and of the listing of models is no leftover."""
        found = (path.relative_to(self.place) for path in self.place.rglob("*"))
        return frozenset(
            str(path) for path in found if not {"__pycache__", "home", ".cache", "earlier"} & set(path.parts)
        )


def _decoded(content: bytes) -> str:
    return content.decode(errors="replace")
