"""Folders with odd names, kinds, owners and contents."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.environments.environment import (
    SCRIPT,
    SOMEBODY,
    Environment,
    Prepare,
    move_to,
    shut,
    variables,
    with_file,
    without_privileges,
    write,
)

LONG = "x" * 300


def _folder(name: str, commands: Sequence[str] = ()) -> Environment:
    """A working folder of that name, with the earlier runs in it."""
    return Environment(where=f"PLACE/{name}", prepare=lambda place: move_to(place, name), commands=commands)


def _run_dir(value: str, prepare: Prepare = lambda place: None) -> Environment:
    return Environment(words=[f"hydra.run.dir={value}"], prepare=prepare, commands=["run"])


def _holding(
    *names: str,
    content: bytes = b"raise SystemExit('imported from the working folder')\n",
    commands: Sequence[str] = ("run",),
) -> Environment:
    """A working folder that holds files of these names."""

    def prepare(place: Path) -> None:
        for name in names:
            write(place / name, content)

    return Environment(prepare=prepare, python=SCRIPT, commands=commands)


def _linked(place: Path) -> None:
    move_to(place, "real")
    (place / "link").symlink_to("real")


def _changed(change: Callable[[Path], object]) -> Environment:
    """Something about the working folder and all that it holds is changed."""

    def prepare(place: Path) -> None:
        for path in [place, *place.rglob("*")]:
            change(path)

    return Environment(prepare=prepare)


NAMES = {
    "spaces": "a b c",
    "umlauts": "äöü",
    "decomposed umlauts": "a\u0308o\u0308",
    "letters from right to left": "\u05d0\u202e\u05d1👩\u200d🔬",
    "a line break": "a\nb",
    "a terminal command": "a\x1b[2Jb",
    "a quote": "a'b\"c",
    "a backslash": "a\\b",
    "a trailing space": "a ",
    "a leading dash": "-m",
    "signs of a sweep": "seed=1,2",
    "brackets": "[a]{b}(c)",
    "dollars and percents": "$HOME ${x} %s %%",
    "signs of a shell": "#a;b&c|d<e>:*?!",
    "a tilde": "~",
    "255 bytes": "x" * 255,
}

DATA: tuple[tuple[str, str, Prepare], ...] = (
    ("~", "~/data", lambda place: None),
    ("$HOME", "$HOME/data", lambda place: None),
    ("quotes", "'data'", lambda place: None),
    ("a file", "PLACE/file", lambda place: write(place / "file", b"")),
    ("nothing", "", lambda place: None),
    ("a long name", LONG, lambda place: None),
    ("a link to nothing", "PLACE/link", lambda place: (place / "link").symlink_to("nothing")),
    ("a device", "/dev/null", lambda place: None),
    ("a missing folder", "PLACE/missing", lambda place: None),
)
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

MODULES = (
    "torch",
    "numpy",
    "random",
    "socket",
    "signal",
    "json",
    "yaml",
    "struct",
    "types",
    "tqdm",
    "filelock",
    "typing",
)
PACKAGES = ("hydra", "omegaconf", "multiprocessing", "pydantic", "PIL")

PLACES: dict[str, Environment] = {
    **{f"a folder with {what}": _folder(name) for what, name in NAMES.items()},
    "a folder that is not UTF-8": Environment(
        where="PLACE/a\udcffb", prepare=lambda place: os.mkdir(os.fsencode(place) + b"/a\xffb")
    ),
    "a deep folder": _folder("/".join(["d" * 100] * 8)),
    "a folder that is gone": Environment(
        prepare=lambda place: (place / "gone").mkdir(), set_up=lambda: (os.chdir("gone"), os.rmdir("../gone"))
    ),
    "a folder in which nothing can be created": Environment(where="/proc/self/fdinfo", commands=["run", "models", "sweep"]),
    "a link to a folder": Environment({"PWD": "PLACE/link"}, where="PLACE/link", prepare=_linked),
    "a PWD that lies": variables(PWD="/nonexistent", OLDPWD="/nonexistent"),
    "a folder that passes on its group": _changed(lambda path: path.chmod(0o2777) if path.is_dir() else None),
    "files from the future": _changed(lambda path: os.utime(path, (2**33, 2**33))),
    # What lies in the working folder
    "modules in the folder": _holding(*(f"{name}.py" for name in MODULES), commands=["run", "sweep"]),
    "packages in the folder": _holding(*(f"{name}/__init__.py" for name in PACKAGES), commands=["run", "sweep"]),
    "era_cnn in the folder": _holding("era_cnn/__init__.py", "era_cnn/cli.py", "sitecustomize.py", "usercustomize.py", "conftest.py"),
    "conf in the folder": _holding("conf/config.yaml", "conf/model/model_4.yaml", "config.yaml", "model/model_4.yaml", content=b"epochs: [\n"),
    "matplotlib's settings in the folder": _holding("matplotlibrc", content=b"figure.dpi: nonsense\nbackend: nonsense\n", commands=["reported run"]),
    "outputs that is a file": _holding("outputs", "multirun", content=b""),
    "outputs that is a link to nothing": Environment(
        prepare=lambda place: [(place / name).symlink_to("nothing") for name in ("outputs", "multirun")], commands=["run", "sweep"]
    ),
    "outputs that is a link to a folder": Environment(
        prepare=lambda place: [((place / "other").mkdir(exist_ok=True), (place / name).symlink_to("other")) for name in ("outputs", "multirun")],
        commands=["run", "sweep"],
    ),
    # Folders of runs
    "run in ~": _run_dir("'~/run'"),
    "run in $HOME": _run_dir("'$HOME/run'"),
    "run in quotes": _run_dir("\"'quoted'\""),
    "run in the home of nobody": _run_dir("'~nobody-there/run'"),
    "run below a link to nothing": _run_dir("link/run", lambda place: (place / "link").symlink_to(place / "nothing")),
    "run in a link to nothing": _run_dir("link", lambda place: (place / "link").symlink_to(place / "nothing")),
    "run below a link to itself": _run_dir("link/run", lambda place: (place / "link").symlink_to("link")),
    "run below a link to a folder": _run_dir("link/run", lambda place: ((place / "other").mkdir(), (place / "link").symlink_to("other"))),
    "run in /proc": _run_dir("/proc/self/run"),
    "run below a device": _run_dir("/dev/null/run"),
    "run below a file": _run_dir("file/run", lambda place: write(place / "file", b"")),
    "run in a file": _run_dir("file", lambda place: write(place / "file", b"")),
    "run with a long name": _run_dir(LONG),
    "run with a long path": _run_dir("/".join(["x" * 100] * 60)),
    "run with a name of 255 bytes": _run_dir(f"'{'ä' * 127}x'"),
    "run in .": _run_dir("."),
    "run in ..": _run_dir(".."),
    "run in /": _run_dir("/"),
    "run in an empty name": _run_dir("''"),
    "run with a trailing space": _run_dir("'a '"),
    "run with a line break": _run_dir("'a\nb'"),
    "run with a zero byte written out": _run_dir("'a\\0b'"),
    "run in a pipe": _run_dir("pipe/run", lambda place: os.mkfifo(place / "pipe")),
    "run in umlauts": _run_dir("'läufe/ö'"),
    "run with the signs of a sweep": _run_dir("'seed=1,2'"),
    "run with a leading dash": _run_dir("-m"),
    "run in a completed run": _run_dir("earlier/completed"),
    "run in a folder with files": _run_dir("full", lambda place: write(place / "full" / "a", b"")),
    # Data
    **{
        f"data in {name}": Environment({"ERA_CNN_DATA": value, **NO_NETWORK}, prepare=prepare, commands=["mnist"])
        for name, value, prepare in DATA
    },
    # Temporary files
    **{
        f"TMPDIR of {length} characters": Environment(
            {"TMPDIR": "PLACE/" + "t" * length}, prepare=lambda place, length=length: (place / ("t" * length)).mkdir(), commands=["sweep"]  # type: ignore[misc]
        )
        for length in (80, 200)
    },
    "TMPDIR missing": variables(["sweep"], TMPDIR="PLACE/missing"),
    "TMPDIR a file": with_file(["sweep"], TMPDIR="PLACE/file"),
    "TMPDIR in umlauts": Environment(
        {"TMPDIR": "PLACE/tmp ä"}, prepare=lambda place: (place / "tmp ä").mkdir(), commands=["sweep"]
    ),
    # Homes and caches
    "no HOME": variables(HOME=None),
    "HOME missing": variables(HOME="PLACE/missing"),
    "HOME a file": with_file(HOME="PLACE/file"),
    "HOME relative": variables(HOME="home"),
    **{f"{name} a file": with_file(["reported run", "models"], **{name: "PLACE/file"}) for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR")},
    "MPLCONFIGDIR missing": variables(["reported run"], MPLCONFIGDIR="/proc/missing"),
}  # fmt: skip

if os.geteuid() == 0:
    PLACES |= {
        "a folder that is not ours": Environment(
            where="PLACE/own",
            prepare=lambda place: shut(place / "own", 0o755, SOMEBODY),
            set_up=without_privileges,
            commands=["run", "sweep", "models", "help"],
        ),
        "a folder that can only be read": Environment(
            prepare=lambda place: shut(move_to(place, "own"), 0o555),
            where="PLACE/own",
            set_up=without_privileges,
            commands=["run", "sweep", "compare", "describe"],
        ),
        "a folder that can't be listed": Environment(
            prepare=lambda place: shut(move_to(place, "own"), 0o311), where="PLACE/own", set_up=without_privileges
        ),
        "a shared folder in which names are kept": Environment(
            prepare=lambda place: shut(move_to(place, "own"), 0o1777, SOMEBODY), where="PLACE/own"
        ),
        "a folder that can't be read": Environment(
            prepare=lambda place: shut(place / "shut"),
            words=["hydra.run.dir=shut/run"],
            set_up=without_privileges,
            commands=["run"],
        ),
        "runs that can't be read": Environment(
            prepare=lambda place: shut(place / "earlier" / "completed"),
            set_up=without_privileges,
            commands=["resume", "replay", "compare"],
        ),
        "runs that can only be read": Environment(
            prepare=lambda place: shut(place / "earlier" / "completed", 0o555),
            set_up=without_privileges,
            commands=["resume", "replay", "compare"],
        ),
        "files of runs that can't be read": Environment(
            prepare=lambda place: (place / "earlier" / "completed" / "config.yaml").chmod(0),
            set_up=without_privileges,
            commands=["resume", "replay", "compare"],
        ),
    }
