"""Command lines and config files that nobody would write, as many as wanted.

    python -m tests.faults.fuzz --examples 10000 --seed 1 --out FILE.json

An example goes through the whole command, in this process, up to where a run would claim its folder. It must be accepted
there, answered with code 0, or refused with code 2, at least one line in our form, no traceback, and no file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from era_cnn import cli
from era_cnn.compose.composition import compose
from era_cnn.compose.words import Words

HANG_SECONDS = 10
SLOW_SECONDS = 2
CONF_DIR = Path(__file__).parents[2] / "conf"
FILES = sorted(path for path in CONF_DIR.rglob("*.yaml"))
GROUPS = sorted({path.parent.relative_to(CONF_DIR).as_posix() for path in FILES} - {".", "hydra/help"})
SECRET = "sesame-open-4711"


class Accepted(BaseException):
    """A run would have begun."""


class Hang(BaseException):
    """An example took too long."""


@dataclass
class Example:
    """A command line, and the files of the folder `own` that it may name."""

    words: list[str]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Outcome:
    """What became of an example: `accepted`, `refused`, `hang` or `failed`, and why."""

    state: str
    seconds: float
    said: str = ""
    why: str = ""


def keys() -> list[str]:
    """Every key of the composed config, Hydra's own included."""

    def below(values: Any, prefix: str) -> Iterator[str]:
        for key, value in values.items():
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from below(value, f"{prefix}{key}.")

    return list(below(OmegaConf.to_container(compose(Words()), resolve=False), ""))


HOSTILE = [
    "", " ", "null", "true", "nan", "inf", "-inf", "1e999", "-1", "0", "1.5", "1e400", "9" * 99, "9" * 5000, "0x" + "f" * 60,
    "???", "[]", "{}", "[1", "{a:1}", "{a:{b:[1,{c:d}]}}", "'", "''", '"', "\\", "a\\=b", "[" * 19 + "]" * 19, "[" * 400,
    "{a:" * 15 + "1" + "}" * 15, "(" * 50, "$", "${", "${a}", "${seed}", "${name}", "${.lr}", "${..name}", "${hydra:run.dir}",
    "${hydra:job.num}", "${now:%Y}", "${now:%}", "${oc.env:SECRET}", "${oc.env:SECRET,x}", "${oc.env:ERA_CNN_DATA,x}",
    "'${oc.decode:${oc.env:SECRET}}'", "'${oc.create:{_target_:os.system}}'", "'${oc.select:model}'", "'${oc.${name}:SECRET}'",
    "${model}", "${model.layers}", "${optimizer}", "{_target_:os.getcwd}", "[{_target_:os.getcwd}]", "os.getcwd", "../../x", "/",
    "/etc/passwd", "a/../..", "a b", "'a\nb'", "a\tb", "\x1b[31m", "'\x1b[2J'", "'\0'", "\0", "é", "💥", "'💥'", "\udcff", "a" * 300,
    "a" * 3000, "a,b", "1,2", "1,2,3", "a,[1,2],{a:1}", "range(3)", "range(1e10)", "range(0,1,1e-9)", "range(0,inf)", "range(nan)",
    "range(1,2,0)", "range(3,1,-1)", "shuffle(range(1e12))", "sort(3,1,2)", "sort(a,1)", "glob(*)", "glob([*)", "choice(1,2)",
    "choice()", "choice(choice(1,2))", "int(1.5)", "int(x)", "int(1e400)", "float(" + "9" * 90 + ")", "str([1,2])", "bool(x)",
    "interval(0,1)", "tag(a,choice(1,2))", "extend_list(1)", "nope(1)", "f(" * 30, "${" * 50 + "}" * 50, "'${a}${a}${a}'", "!x", "@",
    "a@b", "{block:conv,out_channels:65536,kernel_size:1}", "{block:conv,out_channels:2147483648}", "{block:nope}", "sgd", "basic",
]  # fmt: skip
"""Values that are wrong nearly everywhere."""

WORDS = [
    "", "=", "+", "++", "~", "-", "@", "a", "a=", "=a", "a==b", "+=1", "~=", "+a.b.c=1", "++a=1", "~a", "a@b=c", "+a@b=c", "+model@x=model_1",
    "model@_global_=model_1", "~model", "~model=model_4", "~experiment", "experiment=null", "experiment=[model_1,model_2]", "optimizer=[sgd,adam]",
    "+" + "a." * 30 + "b=1", "+${a}=1", "+a[0]=1", "model.layers.conv1[0]=1", "+model.layers.x={block:conv,out_channels:65536}",
    "hydra/launcher=nope", "hydra/sweeper=nope", "hydra/job_logging=default", "hydra/job_logging=stdout", "hydra/hydra_logging=default",
    "hydra/callbacks=x", "hydra/env=x", "hydra/output=nope", "hydra/help=default", "hydra=config", "~hydra", "~hydra/launcher", "hydra=null",
    "hydra.searchpath=[pkg://this]", "+hydra.callbacks.x._target_=os.getcwd", "+hydra.launcher.x={_target_:os.getcwd}", "hydra.job.env_copy=[SECRET]",
    "+hydra.job.env_set.A=b", "hydra.mode=MULTIRUN", "hydra.mode=RUN", "hydra.verbose=true", "hydra.verbose=[a,b]", "hydra.job.num=1",
    "hydra.run.dir=.", "hydra.sweep.subdir=..", "+hydra.sweeper.params.seed='1,2'", "hydra.sweeper.max_batch_size=1", "hydra.runtime.cwd=x",
    "hydra.help.template=$x", "--", "-x", "--nope", "\x1b[31mx=1", "\udcff=1", "é=1", "\0=1", "a" * 3000, "a" * 5000 + "=1", "a/" * 100 + "=1",
    "models", "describe", "resume", "data",
]  # fmt: skip
"""Whole words of a command line."""

MILD = [
    "1", "2", "3", "0.5", "0.1", "10", "64", "7.5", "1e-3", "1_000", "true", "false", "null", "none", "conv", "relu", "group", "layer", "sgd",
    "[0.9,0.99]", "[1,2]", "[conv,norm,activation,dropout]", "{}", "{x:1}", "'1'", "a", "1,2", "0.1,0.2", "a,b", "${seed}", "${model.dropout}",
    "${trainer.epochs}", "${oc.env:ERA_CNN_DATA,x}", "9223372036854775807", "9223372036854775808", "2147483648", "1e308", "1e-320", "-0.0",
]  # fmt: skip
"""Values that are right somewhere, and often not where they stand."""

SOUND = [
    "seed=3", "optimizer.lr=0.02", "model.dropout=0.1", "experiment=model_3", "experiment=model_1", "optimizer=adam", "optimizer=adamw",
    "scheduler=cosine", "scheduler=one_cycle", "augmentation=affine", "trainer=smoke", "data=mnist", "~target", "name=x", "threads=1",
    "trainer.epochs=3", "+model.layers.conv2.stride=2", "~model.layers.conv3", "hydra.run.dir=x/${name}",
]  # fmt: skip
"""Words that nothing is wrong with, at least alone."""

FLAGS: list[list[str]] = [
    *[[]] * 24, *[["-m"]] * 7, *[["--cfg", "all", "--resolve"]] * 3, ["--cfg", "job"], ["--help"], ["--info", "config"],
    ["--info", "searchpath"], ["--hydra-help"], ["--resolve"], ["--run", "-m"], ["--config-name", "config"], ["--config-name", "../x"],
    ["--config-name", "model/model_3"], ["--config-name", "\0"], ["--config-dir", "nope"],
]  # fmt: skip
"""What stands before the overrides: mostly nothing."""

TOKENS = [
    "&a ", "*a", "<<: *a", "[*a, *a]", "!!python/object/apply:os.system ['touch sprung']", "!!binary aGk=", "!!set {a}", "!!timestamp 2020-01-01",
    "!!int x", "!!float x", "!!bool x", "!!null x", "!x ", "\t", "\r", "\0", "\x07", "\ufeff", "\u2028", "---\n", "...\n", "%YAML 9\n", "%TAG ! x\n",
    "? ", ": ", "- ", "{", "}", "[", "]", "[" * 50, "{a: " * 400, "|\n", ">\n", "'", '"', "# @package _global_\n", "# @package a b\n", "# @package x.y\n",
    "# @package hydra\n", "1e999", ".nan", ".inf", "9" * 5000, "0o17", "0xff", "1:59:59", "~", "null", "yes", "2020-01-01", "${seed}", "${oc.env:SECRET}",
    "${oc.create:{a: b}}", "${", "${a", "${.lr}${.lr}", "???", "_target_: os.getcwd\n", "defaults: [model_4]\n", "defaults: [../../x]\n",
    "defaults: [{model: '${seed}'}]\n", "defaults: 3\n", "hydra: {callbacks: {a: {_target_: os.getcwd}}}\n", "hydra: null\n", "hydra: 3\n",
    "hydra: {searchpath: ['pkg://this']}\n", "\"\\ud800\"", "\"\\e[31m\"", "k: v\n" * 2, "x: " + "y" * 70000 + "\n", "[" + "1, " * 12000 + "]",
]  # fmt: skip
"""Pieces of YAML."""


def one_of(*choices: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any of them equally often; hypothesis' own would rather take each of the choices within them equally often."""
    return st.sampled_from(choices).flatmap(lambda choice: choice)


def overrides(known: list[str]) -> st.SearchStrategy[str]:
    """A word: a real key or group with a value that is mostly wrong, or something else altogether."""
    options = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]
    known_key = st.sampled_from(known)
    key = one_of(known_key, known_key, known_key, known_key, st.sampled_from(GROUPS), st.text(max_size=12))
    mangled = st.builds(
        lambda key, more: f"{key}.{more}", key, st.sampled_from(["x", "_target_", "0", "x.y", "name", ""])
    )
    value = one_of(
        st.sampled_from(MILD),
        st.sampled_from(MILD),
        st.sampled_from(HOSTILE),
        st.sampled_from(HOSTILE),
        st.integers(-(10**6), 10**30).map(str),
        st.floats().map(str),
        st.text(max_size=20),
        st.text("[]{}(),:=${}.'\"\\ \tab01+~@", max_size=30),
        st.lists(st.sampled_from(HOSTILE[:60]), max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
    )
    assignment = st.builds(
        lambda prefix, key, value: f"{prefix}{key}={value}",
        st.sampled_from(["", "", "", "", "+", "++", "~"]),
        one_of(key, key, mangled),
        value,
    )
    return one_of(
        assignment, assignment, assignment, st.sampled_from(WORDS), st.sampled_from(options), st.text(max_size=30)
    )


def command_lines(known: list[str]) -> st.SearchStrategy[Example]:
    """Flags, then overrides."""

    def example(verb: list[str], flags: list[str], sound: list[str], words: list[str]) -> Example:
        return Example([*verb, *(flags if not verb else []), "data=digits", *sound, *words])

    return st.builds(
        example,
        st.sampled_from([[], [], [], [], [], [], ["describe"]]),
        st.sampled_from(FLAGS),
        st.lists(st.sampled_from(SOUND), max_size=2),
        st.lists(overrides(known), min_size=1, max_size=4).map(
            lambda words: words[: 1 + len(words) // 3]
        ),  # mostly one
    )


def texts(files: list[Path]) -> st.SearchStrategy[bytes]:
    """A config file: a real one with something done to it, or one made up."""

    def mutated(path: Path, changes: list[tuple[float, int, str]]) -> bytes:
        text = path.read_text(encoding="utf-8")
        for where, length, token in changes:
            start = int(where * len(text))
            text = text[:start] + token + text[start + length :]
        return text.encode("utf-8", "surrogatepass")

    def revalued(path: Path, where: float, value: str) -> bytes:
        """Another value in one line, so that the file mostly stays YAML."""
        lines = path.read_text(encoding="utf-8").splitlines()
        number = int(where * (len(lines) - 1))
        head, _, _ = lines[number].partition(": ")
        lines[number] = f"{head}: {value}"
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    value = one_of(st.sampled_from(MILD), st.sampled_from(HOSTILE), st.sampled_from(TOKENS))
    one_line = st.builds(revalued, st.sampled_from(files), st.floats(0, 1), value)
    change = st.tuples(st.floats(0, 1), st.integers(0, 12), one_of(st.sampled_from(TOKENS), st.text(max_size=8)))
    real = st.builds(mutated, st.sampled_from(files), st.lists(change, min_size=1, max_size=3))
    scalar = one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(HOSTILE)
    )
    name = one_of(
        st.sampled_from(["name", "lr", "layers", "defaults", "hydra", "_target_", "block", "x"]), st.text(max_size=6)
    )
    tree = st.recursive(
        scalar,
        lambda inner: one_of(st.lists(inner, max_size=4), st.dictionaries(name, inner, max_size=4)),
        max_leaves=12,
    )
    made_up = tree.map(lambda values: yaml.dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"))
    pieces = st.lists(one_of(st.sampled_from(TOKENS), st.sampled_from(["a: ", "b: ", "\n", "x"])), max_size=8)
    glued = pieces.map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))
    return one_of(one_line, one_line, one_line, one_line, real, real, made_up, glued, st.binary(max_size=40))


def config_files() -> st.SearchStrategy[Example]:
    """A folder of one's own with one file, chosen as an option of a group or as the primary config."""

    def option(flags: list[str], group: str, content: bytes) -> Example:
        return Example(["--config-dir", "own", *flags, "data=digits", f"{group}=fuzz"], {f"{group}/fuzz.yaml": content})

    def primary(flags: list[str], content: bytes) -> Example:
        return Example(["--config-dir", "own", "--config-name", "fuzz", *flags, "data=digits"], {"fuzz.yaml": content})

    def replaced(flags: list[str], path: Path, content: bytes) -> Example:
        """What was made of a file, chosen where the file is."""
        group = path.parent.relative_to(CONF_DIR).as_posix()
        return option(flags, group, content) if group in GROUPS else primary(flags, content)

    groups = st.sampled_from([*GROUPS, *GROUPS, "hydra/launcher", "hydra/env", "hydra/callbacks", "hydra/job_logging"])
    flags: st.SearchStrategy[list[str]] = st.sampled_from([[], [], [], ["-m"], ["--cfg", "all"], ["--help"]])
    in_place = st.sampled_from(FILES).flatmap(lambda path: st.builds(replaced, flags, st.just(path), texts([path])))
    anywhere = st.builds(option, flags, groups, texts(FILES))
    return one_of(in_place, in_place, in_place, anywhere, st.builds(primary, flags, texts(FILES)))


def examples() -> st.SearchStrategy[Example]:
    """All that the campaign tries."""
    return one_of(command_lines(keys()), command_lines(keys()), config_files())


def try_out(example: Example) -> Outcome:
    """Runs an example in an empty folder, and looks at what it said and left."""
    with tempfile.TemporaryDirectory() as folder, _at(folder):
        for name, content in example.files.items():
            path = Path("own", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before = sorted(Path().rglob("*"))
        state, code, said, seconds = _run(example.words)
        left = sorted(set(Path().rglob("*")) - set(before))
    if state == "failed":
        return Outcome("failed", seconds, said, "a traceback")
    if state == "hang":
        return Outcome("hang", seconds, said, "a hang")
    lines = [line for line in said.splitlines() if line]
    ours = not said.startswith("usage:")  # which argparse says
    whys = [
        ("Traceback" in said, "a traceback"),
        (SECRET in said, "the secret"),
        (bool(left), f"left {left}"),
        (seconds > SLOW_SECONDS, f"{seconds:.1f} seconds"),
        (state == "done" and code not in (0, 2), f"code {code}"),
        (code == 2 and not lines, "no message"),
        (code == 2 and ours and not any(" must " in line for line in lines), "another form"),
        (code == 2 and ours and not all(line.isprintable() for line in lines), "a message that the terminal obeys"),
    ]
    why = next((why for is_so, why in whys if is_so), "")
    if why:
        return Outcome("failed", seconds, said, why)
    return Outcome("refused" if code == 2 else "accepted", seconds, said)


def _run(words: list[str]) -> tuple[str, int | None, str, float]:
    """Whether it was done, accepted, hung or failed; the exit code; what was said; the seconds."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out, err = io.StringIO(), io.StringIO()
    environment = {**os.environ, "SECRET": SECRET}
    started = time.process_time()  # not the clock on the wall: the machine may be busy
    try:
        with (
            mock.patch("era_cnn.runs.start.claim", _accept),
            mock.patch("era_cnn.runs.parts.read_data", _accept),
            mock.patch.dict(os.environ, environment),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
            _alarm(),
        ):
            warnings.simplefilter("ignore")
            code = cli.main(words)
        state = "done"
    except Accepted:
        state, code = "accepted", None
    except SystemExit as end:  # argparse's own
        state, code = "done", end.code if isinstance(end.code, int) else 1
    except Hang:
        state, code = "hang", None
    except BaseException as error:  # noqa: BLE001 - what else would be a traceback
        state, code = "failed", None
        err.write(f"{type(error).__name__}: {error}")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    seconds = time.process_time() - started
    return state, code, err.getvalue() + ("Traceback" if "Traceback" in out.getvalue() else ""), seconds


def _accept(*arguments: object, **options: object) -> None:
    raise Accepted


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS, 1)  # again each second: a library may swallow the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _at(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def campaign(num_examples: int, first_seed: int) -> dict[str, Any]:
    """Tries that many examples, none of which stops it.

    Returns:
        Counts, the slowest example, and each failure with what repeats it.
    """
    figures: dict[str, Any] = {
        "examples": 0,
        "accepted": 0,
        "refused": 0,
        "tracebacks": 0,
        "hangs": 0,
    }
    figures |= {"seed": first_seed, "slowest_seconds": 0.0, "slowest": "", "failures": []}
    try_out(Example(["data=digits"]))  # imports torch

    @seed(first_seed)
    @settings(
        max_examples=num_examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(examples())
    def each(example: Example) -> None:
        outcome = try_out(example)
        figures["examples"] += 1
        figures["accepted"] += outcome.state == "accepted"
        figures["refused"] += outcome.state == "refused"
        figures["hangs"] += outcome.state == "hang"
        figures["tracebacks"] += outcome.why == "a traceback"
        if outcome.seconds > figures["slowest_seconds"]:
            figures["slowest_seconds"], figures["slowest"] = round(outcome.seconds, 3), repr(example)[:2000]
        if outcome.state in ("failed", "hang"):
            figures["failures"].append({"example": repr(example), "why": outcome.why, "said": outcome.said[:1000]})

    each()
    return figures


def main() -> int:
    """The campaign as a command; code 1 if it found anything."""
    parser = argparse.ArgumentParser(description="Tries hostile command lines and config files.")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    figures = campaign(args.examples, args.seed)
    text = json.dumps(figures, indent=2)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
