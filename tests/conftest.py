from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import grammar_parser

from era_cnn.cli import main
from era_cnn.compose.composition import compose, validated
from era_cnn.compose.words import Words
from era_cnn.config import plugins
from era_cnn.config.choices import REGISTRIES
from era_cnn.config.schema import RunConfig
from era_cnn.config.signatures import is_own
from era_cnn.folders.storage import files_sha256
from era_cnn.models.summary import Summary
from era_cnn.runs.checkout import read_checkout
from era_cnn.runs.collector import Collector
from era_cnn.runs.provenance import PACKAGE_DIR
from era_cnn.use.catalogue import describe
from tests.helpers import forget_entry_points, nothing_stays_registered
from tests.process import REPORTERS

CONF_DIR = Path(__file__).parents[1] / "conf"
OWN_IMAGES = "own_images"
"""The experiment that needs a folder of images."""

MODELS = ", ".join(sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml")))
"""The options of `model`, as messages list them."""

EXPERIMENTS = sorted({path.stem for path in (CONF_DIR / "experiment").rglob("*.yaml")} - {OWN_IMAGES})
GREY_EXPERIMENTS = [name for name in EXPERIMENTS if not name.startswith("cifar10")]
"""Those on grey images of 28×28 pixels."""

MNIST_ROOT = os.environ.get("ERA_CNN_DATA")


IN_MEMORY = Path("/dev/shm")
"""Where there is one, temporary files lie there: a file that is written for good costs a disk 8 ms, and this 0.04."""

FONTS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "matplotlib")
"""Where Matplotlib remembers which fonts there are; to search for them takes seconds."""

_unmarked: list[str] = []
"""The test that is under way, if it must not start an interpreter."""


def pytest_configure(config: pytest.Config) -> None:
    """Puts temporary files into memory, if there is enough and nobody says otherwise; removes them at the end."""
    is_worker = hasattr(config, "workerinput")
    if is_worker or config.option.basetemp or not os.access(IN_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(IN_MEMORY).free > 2**31:
        place = Path(tempfile.mkdtemp(prefix="era-cnn-tests-", dir=IN_MEMORY))
        config.option.basetemp = str(place / "pytest")
        config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the largest files come first: a long one that is begun last would keep one worker waiting for the other."""
    sizes = {path: path.stat().st_size for path in {item.path for item in items}}
    items.sort(key=lambda item: (-sizes[item.path], item.path))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spares the garbage collector the million objects of what was imported, which it would visit in every test."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Knows which test is under way."""
    _unmarked[:] = [] if item.get_closest_marker("process") else [item.nodeid]
    try:
        return (yield)
    finally:
        _unmarked.clear()


_start_process = subprocess.Popen.__init__


def _refuse_interpreters(process: subprocess.Popen[Any], words: Any, *arguments: Any, **options: Any) -> None:
    """An interpreter takes seconds to import torch: a test that starts one has to say so. Most can use `Command`.

    Not an audit hook, since that is called for each file and import, too, which took a twentieth of the time of all tests.
    """
    line = words if isinstance(words, str) else " ".join(map(os.fsdecode, words))
    if _unmarked and re.search(r"(^|[ /'])(python[\d.]*|era-cnn)( |'|$)", line) and "tests.process" not in line:
        process._child_created = False  # type: ignore[attr-defined] # else it complains when it is deleted
        raise AssertionError(f"{_unmarked[0]} starts an interpreter, so it needs the marker `process`: {line[:200]}")
    _start_process(process, words, *arguments, **options)


subprocess.Popen.__init__ = _refuse_interpreters  # type: ignore[method-assign]


COMPUTED = ("data.mean=[0.1]", "data.std=[0.3]")
CONTENTS = "data.contents={shape:[1,28,28],class_names:[a,b],train_size:9,test_size:9}"
WITHOUT_FILES = {
    **dict.fromkeys(("data=emnist", "data=qmnist"), COMPUTED),
    **dict.fromkeys(
        ("data=image_folder", "data=npz", "experiment=own_images"), (*COMPUTED, CONTENTS, "data.root=nowhere")
    ),
}
"""What is otherwise found in the files of a data set."""


@cache
def config_of(*overrides: str) -> RunConfig:
    """Composed and validated as the command does it; once for each set of overrides, since nothing changes a config."""
    return validated(compose(Words(list(overrides))))


def option(group: str, name: str) -> tuple[str, ...]:
    """The overrides that choose an option of a group, with what it needs besides."""
    watch = ("trainer.watch=train_loss",) if name == "plateau" else ()
    return f"{group}={name}", *watch, *WITHOUT_FILES.get(f"{group}={name}", ())


@pytest.fixture(autouse=True)
def _no_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test stands in an empty folder of its own, so that what it leaves behind is seen and is gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # the width of whoever runs the tests
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_entries_left() -> Iterator[None]:
    """A test that registers an entry takes it back (`nothing_stays_registered`): later ones list what there is."""
    yield
    left = [
        f"{kind}.{name}" for kind, known in REGISTRIES.items() for name, e in known.imported().items() if not is_own(e)
    ]
    assert left == []


@pytest.fixture(autouse=True)
def _no_reports(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and sweeps of tests write no reports, which take longer than they do, unless a test asks for them."""
    if "with_reports" not in request.fixturenames:
        for name in REPORTERS:
            monkeypatch.setattr(name, lambda *arguments, **options: None)


@pytest.fixture
def with_reports() -> None:
    """Lets runs and sweeps in this process write their reports."""


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `era-cnn models` stores stays out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MPLCONFIGDIR", str(FONTS))
        yield


@pytest.fixture(autouse=True, scope="session")
def _done_once() -> Iterator[None]:
    """What takes long and is the same each time is done once, unless a test is about it and so calls it elsewhere.

    `era-cnn models` builds every packaged experiment, each run starts git five times and reads all code of the package,
    and OmegaConf's parser in Python reads the same few interpolations in each composition.
    """
    described: dict[str, tuple[Summary, list[str]]] = {}

    def describe_once(config: RunConfig) -> tuple[Summary, list[str]]:
        if config.name not in EXPERIMENTS:
            return describe(config)
        key = config.model_dump_json()
        return described.get(key) or described.setdefault(key, describe(config))

    read = cache(lambda package_dir: read_checkout(package_dir, Collector()))
    digest = cache(files_sha256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("era_cnn.use.catalogue.describe", describe_once)
        patch.setattr(
            "era_cnn.runs.provenance.files_sha256",
            lambda folder, pattern: (digest if folder == PACKAGE_DIR else files_sha256)(folder, pattern),
        )
        patch.setattr("era_cnn.runs.provenance.read_checkout", lambda package_dir, collector: read(package_dir))
        patch.setattr("omegaconf.base.parse", cache(grammar_parser.parse))
        yield


@pytest.fixture(autouse=True, scope="session")
def _jobs_can_fail() -> Iterator[None]:
    """Jobs of sweeps are forked from a process that begins once: it must know from the beginning how they may fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "sweeps" / "sabotage"))
        patch.setenv("SABOTAGE", "{}")
        yield


@pytest.fixture
def sabotaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, str]], None]:
    """Lets runs in other processes fail on purpose from now on: from a seed to how (see `sweeps/sabotage`)."""

    def prepare(ways: dict[int, str]) -> None:
        monkeypatch.setenv("SABOTAGE", json.dumps(ways))
        monkeypatch.setenv("SABOTAGE_DIR", str(tmp_path))

    return prepare


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `era-cnn` in this process; gives exit code, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes a distribution appear as installed: its modules, and its entry points by name."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(name: str, points: dict[str, str], **modules: str) -> None:
        folder = site / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"[{plugins.GROUP}]", *(f"{point} = {value}" for point, value in points.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text, encoding="utf-8")
        forget_entry_points()

    modules = set(sys.modules)
    with nothing_stays_registered():
        yield make
    for name in sys.modules.keys() - modules:
        if name.startswith("demo_"):
            del sys.modules[name]
