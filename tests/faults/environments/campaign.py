"""Gives commands in each of the environments, and looks at what they said and left."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.campaigns import workplace
from tests.faults.environments.checkouts import CHECKOUTS
from tests.faults.environments.environment import Environment, write
from tests.faults.environments.interpreters import INTERPRETERS
from tests.faults.environments.limits import CAN_MOUNT, LIMITS
from tests.faults.environments.places import PLACES
from tests.faults.environments.streams import STREAMS
from tests.faults.environments.variables import HAS_LOCALES, VARIABLES
from tests.faults.harness import RUN, Report, once

ROOT = Path(__file__).parents[3]
TIMEOUT_SECONDS = 180.0

ONE_EPOCH = once([*RUN, "trainer.limit_epochs=1", "report=false"])
COMMANDS: dict[str, Sequence[str]] = {
    "run": ONE_EPOCH,
    "reported run": ONE_EPOCH[:-1],
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

ENVIRONMENTS: dict[str, Environment] = {
    **PLACES,
    **STREAMS,
    **VARIABLES,
    **INTERPRETERS,
    **CHECKOUTS,
    **LIMITS,
}

LEFT_OUT = {
    "permissions and owners, which need root": os.geteuid() == 0,
    "file systems and containers, which need root and unshare": CAN_MOUNT,
    "locales with their own encodings, which need localedef": HAS_LOCALES,
}
"""What can't be tried on every machine, and whether it can on this one."""

SCRIPT = b"import sys\nfrom era_cnn.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


def _trials() -> Iterator[tuple[str, str]]:
    """The name of an environment, and that of a command."""
    others = itertools.cycle(name for name in COMMANDS if name not in ("run", "mnist"))
    for number, (name, environment) in enumerate(ENVIRONMENTS.items()):
        in_turn = () if number % 10 else (next(others),)
        for command in environment.commands or ("run", *in_turn):
            yield name, command


def environments(trials: int | None = None, *, workers: int = 6, only: str = "", sabotage: str = "none") -> Report:
    """The trials, such as `run in a terminal`, whose names contain `only`; the first ones, if `trials` is a number."""
    for what, is_there in LEFT_OUT.items():
        if not is_there:
            print(f"Left out: {what}.", file=sys.stderr)
    chosen = [(name, command) for name, command in _trials() if only in f"{command} in {name}"][:trials]
    report = Report(figures={"environments": len({name for name, _ in chosen}), "refused": 0, "carried out": 0})
    with workplace() as where, ThreadPoolExecutor(workers) as pool:
        where.chmod(0o755)
        ordinary = _Trial(where / "ordinary", Environment(), "run")
        ordinary.carry_out()
        expected = ordinary.weights()
        assert len(expected) == 1, ordinary.err

        def attempt(numbered: tuple[int, tuple[str, str]]) -> _Trial:
            number, (name, command) = numbered
            trial = _Trial(where / str(number), ENVIRONMENTS[name], command, sabotage)
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
    sabotage: str = "none"
    code: int = -1
    err: str = ""
    out: str = ""
    before: frozenset[str] = frozenset()
    earlier: frozenset[Path] = frozenset()

    def carry_out(self) -> None:
        self.place.mkdir()
        self.place.chmod(0o777)
        earlier = Path(__file__).parents[2] / "folders" / "schema_1"
        shutil.copytree(earlier, self.place / "earlier")
        for path in [self.place / "earlier", *(self.place / "earlier").rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        write(self.place / "bin" / "era-cnn", SCRIPT)
        self.environment.prepare(self.place)
        self.before, self.earlier = self._names(), frozenset(self.place.rglob("*.json"))
        variables: dict[str, str | None] = {
            **os.environ, "ERA_CNN_DATA": None, "HOME": str(self.place / "home"),
            **{name: self._here(value) if value else value for name, value in self.environment.variables.items()},
        }  # fmt: skip
        options: dict[str, Any] = {
            "cwd": self._here(self.environment.where),
            "env": {name: value for name, value in variables.items() if value is not None},
            "preexec_fn": self._begin,
            "close_fds": False,
        }
        how = _in_a_terminal if self.environment.terminal else _with_pipes
        try:
            self.code, self.out, self.err = how(self._words(), options, self.environment)
        except subprocess.TimeoutExpired as error:
            self.code, self.err = -signal.SIGKILL, str(error)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.err = f"it can't be started like this: {error!r}"

    def weights(self) -> set[str]:
        """The digests of the weights of the runs with seed 1 that were completed in this place."""
        results = [json.loads(path.read_text(encoding="utf-8")) for path in self._files("result.json")]
        return {result["weights_sha256"] for result in results if result["seed"] == 1}

    def wrong(self, expected: set[str]) -> Iterator[str]:
        odd = self.environment
        if self.code == -signal.SIGKILL:
            yield f"did not end: {self.err[-300:]}"
        elif self.code not in (0, 1, 2, 3, 4):
            yield f"ended with {self.code}: {self.err[-500:]}"
        if "Traceback" in self.out + self.err:
            yield f"a traceback: {(self.out + self.err)[-800:]}"
        is_readable = not (2 in odd.closed or odd.terminal or odd.is_loud)
        if self.code and is_readable and not 1 <= len(self.err.strip().splitlines()) <= 4:
            yield f"not one message with code {self.code}: {self.err[-500:]!r}"
        if self.code in (2, 3, 4) and (left := self._names() - self.before):
            yield f"left behind {', '.join(sorted(left))[:300]} with code {self.code}"
        new = {Path(name).parts[0] for name in self._names()} - self.before
        if any(name.startswith(("~", "$", "'", '"')) for name in new):
            yield "a folder whose name was not expanded"
        has_run = (
            self.code == 0 and self.command in ("run", "reported run", "sweep") and odd.where != "/proc/self/fdinfo"
        )
        if has_run and (found := self.weights()) != expected:
            yield f"other weights: {found or 'none'}"
        if has_run and odd.is_checkout:
            yield from self._silence()

    def _silence(self) -> Iterator[str]:
        """What is not known of the checkout although nothing says so."""
        for path in self._files("provenance.json"):
            provenance = json.loads(path.read_text(encoding="utf-8"))
            git = provenance["code"]["git"]
            is_known = git is not None and None not in git.values() and None not in git["untracked"].values()
            if not is_known and not provenance["not_collected"]:
                yield f"nothing says why this is recorded of git: {str(git)[:300]}"
            if provenance["not_collected"] and "provenance" not in self.out + self.err:
                yield f"nothing was said about {provenance['not_collected']}"

    def _words(self) -> list[str]:
        python = list(self.environment.python)
        if self.sabotage != "none":
            program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.faults.sabotage import SABOTAGES; "
            python = ["-c", f"{program}SABOTAGES[{self.sabotage!r}](); from era_cnn.cli import main; sys.exit(main())"]
        words = [*self.environment.wrapper, sys.executable, *python, *COMMANDS[self.command], *self.environment.words]
        return [self._here(word) for word in words]

    def _begin(self) -> None:
        self.environment.set_up()
        for descriptor in self.environment.closed:
            os.close(descriptor)

    def _here(self, text: str) -> str:
        return text.replace("PLACE", str(self.place))

    def _files(self, name: str) -> list[Path]:
        return [path for path in self.place.rglob(name) if path not in self.earlier]

    def _names(self) -> frozenset[str]:
        """The names of all that lies in the place; a cache of Python's and of the listing of models is no leftover."""
        found = (path.relative_to(self.place) for path in self.place.rglob("*"))
        return frozenset(
            str(path) for path in found if not {"__pycache__", "home", ".cache", "earlier"} & set(path.parts)
        )


def _with_pipes(words: Sequence[str], options: dict[str, Any], environment: Environment) -> tuple[int, str, str]:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS, check=False, **options
    )
    return done.returncode, _decoded(done.stdout), _decoded(done.stderr)


def _in_a_terminal(words: Sequence[str], options: dict[str, Any], environment: Environment) -> tuple[int, str, str]:
    """All three streams are a terminal, of which everything is read."""
    assert environment.terminal is not None
    columns, rows = environment.terminal
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    deadline, said = time.monotonic() + TIMEOUT_SECONDS, b""
    with subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower, **options) as process:
        os.close(follower)
        try:
            while time.monotonic() < deadline:
                if select.select([leader], [], [], 1)[0]:
                    said += os.read(leader, 2**16)
            process.kill()
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal says that nobody writes to it any more
                raise
        finally:
            os.close(leader)
    return process.returncode, "", _decoded(said)


def _decoded(content: bytes) -> str:
    return content.decode(errors="replace")
