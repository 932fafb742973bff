"""Records of runs: what they hold, what is never recorded, that nothing is lost, and that a claim can be repeated."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
import signal
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from era_cnn.cli import VERBS, main
from era_cnn.compose.composition import compose_run
from era_cnn.compose.words import Words
from era_cnn.config.parsing import parse
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest_without_seed, upgraded
from era_cnn.errors import DataError, RunFolderError
from era_cnn.folders.claims import locked_itself
from era_cnn.folders.record import RECORD, Record, best_of, parse_record, read_record
from era_cnn.portable import TooLateError
from era_cnn.reports import charts, evidence
from era_cnn.reports.collecting import _check_repeatable, _without_folders, _without_places, why_superseded
from era_cnn.reports.evidence import check
from era_cnn.reports.marked import block, blocks_in, replaced
from era_cnn.reports.overview import NONE_YET, overview
from era_cnn.reports.record_charts import curves, frontier
from era_cnn.reports.record_page import NOT_WRITTEN, commands_of, record_page
from era_cnn.reports.recorded import Spread, first_epoch_band, place_of, public_runs, spread
from era_cnn.verbs import recording
from era_cnn.verbs.line import read_line
from tests.helpers import nothing_stays_registered
from tests.reports.made import config_with

Command = Callable[..., tuple[int, str, str]]
SETTING = ("experiment=model_4_digits", "trainer.epochs=2", "threads=1", "report=false")
HERE = "0_model_4_digits"


def composed(overrides: Any) -> Any:
    return compose_run(Words(list(overrides)))


def composes(record: Record) -> Any:
    return composed(record.overrides)


@pytest.fixture(autouse=True)
def _no_drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "draw" not in request.keywords:
        monkeypatch.setattr(charts.Chart, "_saved", lambda chart, kind, **options: b"<svg/>")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two seeds, and single runs that must not be recorded with them."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["-m", *SETTING, "seed=1,2", f"hydra.sweep.dir={folder / 'sweep'}"]) == 0
    others = {
        "limited": ["trainer.limit_train_images=64"],
        "other": ["optimizer.lr=0.02"],
        "cycled": ["scheduler=cosine", "seed=3"],
    }
    for name, words in others.items():
        assert main([*SETTING, *words, f"hydra.run.dir={folder / name}"]) == 0
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """Copies of these runs, which a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of both seeds."""
    folder = tmp_path_factory.mktemp("made") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts.Chart, "_saved", lambda chart, kind, **options: b"<svg/>")
        assert main(["record", str(trained / "sweep"), "--to", str(folder)]) == 0
    return folder


@pytest.fixture
def record(made: Path) -> Record:
    return read_record(made)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the record, which a test may change."""
    return Path(shutil.copytree(made, tmp_path / "experiments" / "digits"))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def files_in(folder: Path) -> dict[Path, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and "runs" not in path.parts]
    return {path: path.read_bytes() for path in paths}


def test_a_record_holds_what_the_runs_gave(trained: Path, made: Path, record: Record) -> None:
    assert [run.seed for run in record.runs] == [1, 2]
    for run in record.runs:
        job = trained / "sweep" / f"{run.seed - 1}_model_4_digits"
        result = json.loads((job / "result.json").read_text(encoding="utf-8"))
        for key in ("best_test_accuracy", "best_test_epoch", "final_test_accuracy", "best_train_accuracy", "seconds"):
            assert getattr(run, key) == result[key]
        assert run.weights_sha256 == result["weights_sha256"]
        assert run.command[:2] == ("era-cnn", "-m")
        (part,) = run.parts
        assert (part.threads, part.device) == (1, "cpu")
    assert record.overrides == SETTING[:3]
    assert {path.name for path in made.iterdir()} == {RECORD, "README.md", "curves.svg"}


def test_a_record_names_no_folder_of_the_machine(trained: Path, made: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in made.iterdir())
    assert str(trained) not in text
    assert "sweep.dir" not in text


def test_neither_does_the_config_of_a_record() -> None:
    values = config_with({"data.name": "mnist", "data.root": "/home/me", "data.train_size": None}).model_dump()
    kept = _without_places({**values, "init_from": "/home/me/run"})
    assert "/home/me" not in json.dumps(kept)
    assert kept["data"]["root"] == "data"
    assert "seed" not in kept


OWN_COMMANDS = {
    "a relative folder": (["--config-dir", "conf", "-m"], ["--config-dir", "conf"]),
    "an absolute folder": (["-m", "-cd", "/home/me/conf", "--plugin=/home/me/mine.py"], ["-cd", "conf", "--plugin=mine.py"]),
    "a folder of the user": (["--plugin", "~/b.py", "--plugin", "my/a.py"], ["--plugin", "b.py", "--plugin", "my/a.py"]),
    "nothing": (["-m"], []),
}  # fmt: skip


PLACES = (
    "hydra.sweep.dir=/home/me/x", "data.root=/data", "++data.root=/data", "sweep.reuse_from=[/home/me]",
    "hydra.sweep={dir: /home/me}", "hydra.searchpath=[file:///home/me/conf]", "+a.b=sqlite:////home/me/study.db",
    "+logger.mine.address=https://me:secret@host/home", "+logger={mine: {address: secret}}", "logger/mine=secret",
)  # fmt: skip


@pytest.mark.parametrize("case", OWN_COMMANDS)
def test_the_command_names_files_of_ones_own_but_no_folder_of_the_machine(case: str, record: Record) -> None:
    typed, expected = OWN_COMMANDS[case]
    command = tuple(_without_folders(["era-cnn", *typed, "seed=1,2", *PLACES]))
    assert not any("/home" in word or "/data" in word or "secret" in word for word in command)
    resumed = list(_without_folders(["era-cnn", "resume", "/home/me/lr=0.1/sweep", "~/home/sweep", "~optimizer.lr"]))
    assert resumed == ["era-cnn", "resume", "sweep", "sweep", "~optimizer.lr"]
    own = replace(record, runs=tuple(replace(run, command=command) for run in record.runs))
    end = [*SETTING[:3], "device=cpu", "seed=1,2", "hydra/launcher=local"]
    assert [command.split() for command in commands_of(own)] == [["era-cnn", "-m", *expected, *end]]


def test_the_command_has_words_as_a_person_types_them(record: Record) -> None:
    """Hydra writes the overrides of a job with Python's words."""
    written = replace(
        record, overrides=("portable=True", "trainer.compile=False", "name=True_north", "data.root=/True")
    )
    (command,) = commands_of(written)
    assert command.split()[2:6] == ["portable=true", "trainer.compile=false", "name=True_north", "data.root=/True"]


@pytest.mark.parametrize(
    ("word", "shown"),
    [("", "threads=1 device=cpu seed"), ("++device=auto", "threads=1 device=cpu seed"), ("portable=true", None)],
)
def test_a_command_takes_no_other_device_where_there_is_one(word: str, shown: str | None, record: Record) -> None:
    """`device=auto`, the default, would; a portable run is trained on the processor anyway."""
    overrides = tuple(filter(None, (*record.overrides, word)))
    config = {**record.config, "portable": word == "portable=true"}
    (command,) = commands_of(replace(record, overrides=overrides, config=config))
    assert "device" not in command if shown is None else shown in command
    assert command.count("device=") <= 1


def of_a_gpu(record: Record, *, graphs: bool = False) -> Record:
    """The same seeds, as if a GPU had trained them, to other weights."""
    runs = tuple(
        replace(
            run,
            weights_sha256=f"{run.seed}" * 64,
            parts=tuple(replace(part, device="NVIDIA H100") for part in run.parts),
        )
        for run in record.runs
    )
    config = {**record.config, "device": "cuda"}
    config["trainer"] = {**config["trainer"], "cuda_graphs": graphs}
    overrides = ("device=cuda", *record.overrides, *(["trainer.cuda_graphs=true"] if graphs else []))
    return replace(record, runs=runs, config=config, overrides=overrides)


def with_digest(record: Record) -> Record:
    return replace(record, config_sha256=digest_without_seed(record.parsed))


def added(before: Record, record: Record) -> Record:
    return evidence._added(before, record, Path("digits"), composed_anywhere)


def composed_anywhere(record: Record) -> Any:
    """As on a machine with a GPU."""
    overrides = record.overrides
    there = [word for word in overrides if word != "device=cuda" and not word.startswith("trainer.cuda_graphs")]
    config = composed(there)
    if len(there) == len(overrides):
        return config
    trainer = config.trainer.model_copy(update={"cuda_graphs": "trainer.cuda_graphs=true" in overrides})
    return config.model_copy(update={"device": "cuda", "trainer": trainer})


SHOWN = f"{SETTING[0]} {SETTING[1]} {SETTING[2]}"


def test_seeds_of_a_processor_are_added_to_those_of_a_gpu_with_their_own_command(record: Record) -> None:
    """As for Model-6: where there is no GPU any more, a processor trains the seeds that are missing."""
    gpu = with_digest(of_a_gpu(record, graphs=True))
    third = replace(record.runs[1], seed=3, weights_sha256="a" * 64)
    both = added(gpu, replace(record, runs=(third,)))
    assert (both.overrides, both.parsed.device, both.superseded) == (gpu.overrides, "cuda", None)
    assert commands_of(gpu) == [
        f"era-cnn -m {SHOWN} device=cuda trainer.cuda_graphs=true seed=1,2 hydra/launcher=local"
    ]
    assert commands_of(both) == [
        f"era-cnn -m {SHOWN} device=cuda trainer.cuda_graphs=true seed=1,2 hydra/launcher=local",
        f"era-cnn {SHOWN} device=cpu trainer.cuda_graphs=false seed=3",
    ]
    assert parse_record(both.to_text()) == both
    page = record_page(both, Path("digits/README.md"))
    assert "\n".join(commands_of(both)) in page
    assert "<br>" in overview({"digits": both})["table"]


def test_a_seed_of_a_gpu_is_added_to_those_of_a_processor(record: Record) -> None:
    before = replace(record, runs=(replace(record.runs[1], seed=2, weights_sha256="b" * 64),))
    both = added(before, replace(of_a_gpu(record), runs=of_a_gpu(record).runs[:1]))
    assert (both.overrides, both.parsed.device) == (record.overrides, record.parsed.device)
    assert commands_of(both) == [f"era-cnn {SHOWN} device=cuda seed=1", f"era-cnn {SHOWN} device=cpu seed=2"]


def test_a_record_keeps_its_name_when_seeds_are_added(record: Record) -> None:
    third = replace(record.runs[1], seed=3, weights_sha256="3" * 64)
    named = replace(record, experiment="mine", overrides=(*record.overrides, "name=mine"), runs=(third,))
    longer = added(record, named)
    assert (longer.experiment, longer.overrides) == (record.experiment, record.overrides)
    assert [run.seed for run in longer.runs] == [1, 2, 3]


def test_a_command_that_no_longer_composes_a_record_is_replaced_by_that_of_new_seeds(record: Record) -> None:
    third = replace(record.runs[1], seed=3, weights_sha256="3" * 64)
    stale = replace(record, overrides=(*record.overrides, "optimizer.lr=0.5"))
    renewed = added(stale, replace(record, runs=(third,)))
    assert (renewed.overrides, renewed.superseded, len(renewed.runs)) == (record.overrides, None, 3)


def test_neither_is_it_replaced_by_one_of_a_device_that_did_not_train_them(record: Record) -> None:
    """The seeds are repeated on a GPU, so that only the first runs count, which are those of a processor."""
    stale = replace(record, overrides=(*record.overrides, "optimizer.lr=0.5"))
    repeated = added(stale, with_digest(of_a_gpu(record, graphs=True)))
    (command,) = commands_of(repeated)
    assert "device=cpu" in command
    assert "trainer.cuda_graphs=false" in command


def test_a_command_names_the_files_that_any_of_the_runs_needed(record: Record) -> None:
    needing = replace(record.runs[1], command=("era-cnn", "--config-dir", "mine", "experiment=model_4_digits"))
    (command,) = commands_of(replace(record, runs=(record.runs[0], needing)))
    assert command.startswith("era-cnn -m --config-dir mine ")


def test_a_seed_can_be_added_later_and_nothing_is_recorded_twice(runs: Path, made: Path, command: Command) -> None:
    assert command("record", str(runs / "sweep" / HERE), "--to", "experiments/digits")[0] == 0
    code, out, _ = command("record", str(runs / "sweep"), "--to", "experiments/digits")
    assert (code, out.splitlines()[0]) == (0, "Record: 2 seeds in experiments/digits, 1 run added to record.json.")
    assert Path("experiments/digits", RECORD).read_bytes() == (made / RECORD).read_bytes()
    code, out, _ = command("record", str(runs / "sweep" / HERE), "--to", "experiments/digits")
    nothing_new = "Record: 2 seeds in experiments/digits, no run added to record.json: all were there already."
    assert (code, out.splitlines()[0]) == (0, nothing_new)
    assert Path("experiments/digits", RECORD).read_bytes() == (made / RECORD).read_bytes()


@pytest.mark.parametrize("words", [["runs/sweep/" + HERE, "--to", "experiments/digits"], ["--update", "experiments"]])
def test_two_commands_do_not_write_records_at_once(
    words: list[str], folder: Path, runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MAX_WAIT_SECONDS", 0.0)
    before = files_in(folder)
    with locked_itself(folder.parent):
        code, out, err = command("record", *words)
    assert (code, out) == (4, "")
    assert err == f"{folder.parent} must be free, got one in use by another process. Wait for it.\n"
    assert files_in(folder) == before
    assert command("record", *words)[0] == 0


def test_what_a_person_wrote_is_kept(folder: Path, runs: Path, command: Command) -> None:
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8").replace(NOT_WRITTEN, "It is \\1 small.\n\n- A list.")
    page.write_text(text.replace("## Target\n", "## Target\n\nMy own words.\n"), encoding="utf-8")
    edit(folder / RECORD, lambda values: values["runs"].pop())
    code, out, _ = command("record", str(runs / "sweep"), "--to", str(folder))
    now = page.read_text(encoding="utf-8")
    assert code == 0
    assert "It is \\1 small.\n\n- A list." in now
    assert "My own words." in now
    assert "n = 2" in now
    assert "To be written" not in out


def incomplete(runs: Path, folder: Path) -> list[Path]:
    (runs / "sweep" / HERE / "result.json").unlink()
    return [runs / "sweep"]


def with_other_metrics(runs: Path, folder: Path) -> list[Path]:
    path = runs / "sweep" / HERE / "metrics.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = lines[-1].split(",")
    path.write_text("\n".join([*lines[:-1], ",".join([*cells[:5], "0.5", *cells[6:]])]) + "\n", encoding="utf-8")
    return [runs / "sweep"]


def with_other_weights(runs: Path, folder: Path) -> list[Path]:
    edit(runs / "sweep" / HERE / "result.json", lambda values: values.update(weights_sha256="0" * 64))
    return [runs / "sweep"]


def without_marks(runs: Path, folder: Path) -> list[Path]:
    (folder / "README.md").write_text("# My own page\n", encoding="utf-8")
    return [runs / "sweep"]


def without_record(runs: Path, folder: Path) -> list[Path]:
    for path in folder.iterdir():
        path.unlink()
    (folder / "thesis.tex").write_text("years of work", encoding="utf-8")
    return [runs / "sweep"]


def without_machine(runs: Path, folder: Path) -> list[Path]:
    edit(runs / "sweep" / HERE / "provenance.json", lambda values: values.pop("machine"))
    return [runs / "sweep"]


def of_a_config_from_python(runs: Path, folder: Path) -> list[Path]:
    shutil.rmtree(runs / "sweep" / HERE / ".hydra")
    return [runs / "sweep" / HERE]


def with_other_data(runs: Path, folder: Path) -> list[Path]:
    edit(runs / "sweep" / HERE / "result.json", lambda values: values.update(data_sha256="0" * 64))
    return [runs / "sweep"]


def without_jobs(runs: Path, folder: Path) -> list[Path]:
    for path in (runs / "sweep").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "multirun.yaml":
            path.unlink()
    return [runs / "sweep"]


def damaged(runs: Path, folder: Path) -> list[Path]:
    (runs / "sweep" / HERE / "provenance.json").write_text("{", encoding="utf-8")
    return [runs / "sweep" / HERE]


REFUSED: dict[str, tuple[Callable[[Path, Path], list[Path]], int, str]] = {
    "incomplete": (incomplete, 4, "must be a complete run, got one that is interrupted. Resume it,"),
    "limited": (lambda runs, folder: [runs / "limited"], 4, "of all epochs, got trainer.limit_train_images=64. Train it"),
    "two settings": (lambda runs, folder: [runs / "sweep", runs / "other"], 2, "optimizer.lr 0.01 and 0.02. Record each"),
    "another setting": (lambda runs, folder: [runs / "other"], 2, "and the runs: optimizer.lr 0.01 and 0.02. Record each"),
    "other data": (with_other_data, 2, "data_sha256 00000000 and 4be44c0d. Record each setting in a folder of its own."),
    "other metrics": (with_other_metrics, 4, "got accuracies that differ from its curves. The folder was changed."),
    "other weights": (with_other_weights, 4, "Seed 1 must have one result on one kind of machine, got the weights "),
    "no machine": (without_machine, 4, "provenance.json must say where the run was trained, got "),
    "from Python": (of_a_config_from_python, 4, "must be a run of overrides, so that a command repeats it, got one of a"),
    "no marks": (without_marks, 4, "README.md must have the lines <!-- records: result, generated by era-cnn record -->"),
    "no record": (without_record, 4, "must be a record, or a new or empty folder, got something else. Give another"),
    "damaged": (damaged, 4, "Remove it, and resume the run). Name only the runs that are complete."),
    "no run": (lambda runs, folder: [folder], 4, "must hold runs or sweeps, got none."),
    "a sweep without jobs": (without_jobs, 4, "must hold complete runs, got a sweep without any. Resume it before"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_recorded_is_said_once_and_nothing_is_written(
    case: str, runs: Path, folder: Path, tmp_path: Path, command: Command
) -> None:
    prepare, code, message = REFUSED[case]
    paths = [str(path) for path in prepare(runs, folder)]
    before = files_in(tmp_path)
    got, out, err = command("record", *paths, "--to", str(folder))
    assert (got, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("effective", "message"),
    [
        (
            {"init_from_sha256": "0" * 64},
            "must be a run from random weights, so that its command alone repeats it, got",
        ),
        (
            {"data": "npz", "data.contents.shape": "[1,28,28]"},
            "must be a run on a published data set.*got data=npz. Keep",
        ),
        ({"init_from_sha256": "null"}, None),
    ],
)
def test_a_run_that_its_command_alone_does_not_repeat_is_not_recorded(
    effective: dict[str, str], message: str | None, trained: Path
) -> None:
    outcome = SimpleNamespace(folder=trained / "sweep" / HERE)
    row: Any = SimpleNamespace(outcome=outcome, result={}, setting=1, effective=effective)
    if message is None:
        _check_repeatable(row)
    else:
        with pytest.raises(RunFolderError, match=message):
            _check_repeatable(row)


@pytest.mark.parametrize(
    ("to", "code", "message"),
    [
        (
            "runs/other/record",
            2,
            "--to must lie outside the folders of runs, which it is to outlast, got 'runs/other/rec",
        ),
        ("runs/sweep/record", 2, "--to must lie outside the folders of runs"),
        ("plain.md/record", 4, "plain.md is not a folder. Give another folder with --to."),
        ("plain.md", 4, "plain.md must be a record, or a new or empty folder"),
    ],
)
def test_a_place_where_no_record_can_be(to: str, code: int, message: str, runs: Path, command: Command) -> None:
    Path("plain.md").write_text("No folder.\n", encoding="utf-8")
    before = sorted(runs.rglob("*"))
    got, out, err = command("record", str(runs / "sweep"), "--to", to)
    assert (got, out, len(err.splitlines())) == (code, "", 1)
    assert message in err
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize("case", ["limited", "incomplete", "two settings"])
def test_a_refused_record_leaves_no_folder(case: str, runs: Path, folder: Path, command: Command) -> None:
    paths = [str(path) for path in REFUSED[case][0](runs, folder)]
    assert command("record", *paths, "--to", "new/record")[0] == REFUSED[case][1]
    assert not Path("new").exists()


def test_a_run_whose_command_composes_something_else_is_not_recorded(runs: Path, command: Command) -> None:
    hydra = runs / "sweep" / HERE / ".hydra" / "hydra.yaml"
    hydra.write_text(hydra.read_text(encoding="utf-8").replace("trainer.epochs=2", "trainer.epochs=3"), "utf-8")
    code, _, err = command("record", str(runs / "sweep" / HERE), "--to", "new")
    assert code == 2
    assert "got other values: trainer.epochs is now 3, was 2. Give their --config-dir" in err


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer": (lambda values: values.update(schema=99), "schema 99, which a newer version of era_cnn wrote: update"),
    "no runs": (lambda values: values.update(runs=[]), "runs: Tuple should have at least 1 item"),
    "unknown key": (lambda values: values.update(more=1), "more: Unexpected keyword argument"),
    "another accuracy": (lambda values: values["runs"][0].update(final_test_accuracy=0.999), "accuracies that differ from"),
    "impossible": (lambda values: values["runs"][0].update(best_test_accuracy=1.5), "less than or equal to 1"),
    "order": (lambda values: values["runs"].reverse(), "runs that are not sorted by seed"),
    "twice": (lambda values: values["runs"].insert(0, values["runs"][0]), "a run that is recorded twice"),
    "short curve": (lambda values: values["runs"][0]["curves"]["train_loss"].pop(), "curves without an accuracy for each"),
    "no curve": (lambda values: values["runs"][0]["curves"].pop("test_loss"), "curves without an accuracy for each"),
    "config": (lambda values: values["config"]["optimizer"].update(lr=0.5), "a config with another digest"),
    "wrong config": (lambda values: values["config"]["optimizer"].update(lr=-1), "optimizer.lr must be greater than 0"),
    "no config": (lambda values: values.update(config={}), "must be given"),
    "unknown optimizer": (lambda values: values["config"]["optimizer"].update(name="mine"), "optimizer.name must be one of"),
    "entry of a plugin": (lambda values: values["config"]["scheduler"].update(name="mine"), ". If a plugin has it, give --plugin."),
    "no layers": (lambda values: values["network"].pop("layers"), "network.layers: Field required"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_record_is_refused_with_one_message(damage: str, folder: Path, command: Command) -> None:
    change, message = DAMAGES[damage]
    edit(folder / RECORD, change)
    before = files_in(folder)
    for words in (["--check", str(folder)], ["--update", str(folder)], ["--repeat", str(folder)]):
        code, out, err = command("record", *words)
        assert (code, out) == (4, "")
        assert "record.json must hold a record that era-cnn record wrote, got: " in err
        assert message in err
        assert len(err.splitlines()) == 1
    assert files_in(folder) == before


def test_a_damaged_record_does_not_stop_the_others(overviewed: Path, runs: Path, command: Command) -> None:
    parent, stale = overviewed.parent, overviewed / "README.md"
    assert command("record", "--update", str(parent))[0] == 0
    (parent / "broken").mkdir()
    (parent / "broken" / RECORD).write_text("{}", encoding="utf-8")
    page = (parent / "README.md").read_bytes()

    code, out, err = command("record", str(runs / "other"), "--to", str(parent / "faster"))
    assert (code, out.splitlines()[0]) == (0, "Record: 1 seed in experiments/faster, written to record.json.")
    assert "broken/record.json must hold a record" in err
    assert err.endswith("Until then, pages that show all records are left as they are.\n")
    stale.write_text(stale.read_text(encoding="utf-8").replace("n = 2", "n = 9"), encoding="utf-8")
    for words, expected in (("--check", "Not current: "), ("--update", "Written: ")):
        code, out, err = command("record", words, str(parent))
        assert (code, len(err.splitlines())) == (4, 1)
        assert out.splitlines()[0] == f"{expected}experiments/digits/README.md"
    assert "n = 2" in stale.read_text(encoding="utf-8")
    assert (parent / "README.md").read_bytes() == page
    shutil.rmtree(parent / "broken")
    assert command("record", "--update", str(parent))[0] == 0
    assert "[faster]" in (parent / "README.md").read_text(encoding="utf-8")


UNREADABLE: dict[str, tuple[Callable[[Record], Record], str]] = {
    "not finite": (
        lambda record: replace(record, runs=tuple(
            replace(run, curves={**run.curves, "test_loss": (float("inf"), 1.0)}) for run in record.runs
        )), "Out of range float values are not JSON compliant",
    ),
    "long override": (lambda record: replace(record, overrides=("x" * 5_000,)), "at most 4000 characters"),
    "many runs": (
        lambda record: replace(record, runs=tuple(replace(record.runs[0], seed=seed) for seed in range(1_001))),
        "at most 1000 items",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_record_that_could_not_be_read_again_is_not_written(case: str, record: Record) -> None:
    change, message = UNREADABLE[case]
    with pytest.raises(RunFolderError, match=f"A record must hold what can be read again, got: .*{message}"):
        change(record).to_text()


def test_neither_is_one_that_is_too_large(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("era_cnn.folders.record.MOST_BYTES", 1_000)
    with pytest.raises(
        RunFolderError, match=r"A record must have at most 1,000 bytes, got \d,\d\d\d\. Record fewer runs"
    ):
        record.to_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"schema": 1}', "[" * 100_000, '{"schema": NaN}', "\udcff"])
def test_what_is_no_record_at_all_is_refused(text: str, folder: Path) -> None:
    (folder / RECORD).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RunFolderError, match="must hold a record"):
        read_record(folder)


def test_a_link_is_not_followed(folder: Path) -> None:
    (folder / RECORD).rename(folder / "elsewhere.json")
    (folder / RECORD).symlink_to(folder / "elsewhere.json")
    with pytest.raises(RunFolderError, match="must hold a record"):
        read_record(folder)


def other_machine(values: dict[str, Any]) -> None:
    values["machine"].update(processor="Another", cpu_capability="AVX2")


def test_a_seed_on_another_kind_of_machine_is_kept_but_not_counted(runs: Path, folder: Path, command: Command) -> None:
    before = read_record(folder)
    with_other_weights(runs, folder)
    edit(runs / "sweep" / HERE / "provenance.json", other_machine)
    assert command("record", str(runs / "sweep" / HERE), "--to", str(folder))[0] == 0
    after = read_record(folder)
    assert [run.seed for run in after.runs] == [1, 1, 2]
    assert spread(after, "final_test_accuracy") == spread(before, "final_test_accuracy")
    assert after.runs[0] == before.runs[0]
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "A seed that stands twice was repeated on another kind of machine; only its first run counts." in page
    assert "- Machine B: Another, AVX2" in page


def test_two_results_of_one_seed_can_begin_a_record(runs: Path, tmp_path: Path, command: Command) -> None:
    other = shutil.copytree(runs / "sweep" / HERE, tmp_path / "runs" / "elsewhere")
    edit(other / "result.json", lambda values: values.update(weights_sha256="0" * 64))
    code, _, err = command("record", str(runs / "sweep"), str(other), "--to", str(tmp_path / "new"))
    assert (code, "Seed 1 must have one result on one kind of machine, got the weights " in err) == (4, True)
    edit(other / "provenance.json", other_machine)
    assert command("record", str(runs / "sweep"), str(other), "--to", str(tmp_path / "new"))[0] == 0
    assert [run.seed for run in read_record(tmp_path / "new").runs] == [1, 1, 2]


def test_the_parts_of_a_resumed_run_are_counted(runs: Path, command: Command) -> None:
    path = runs / "sweep" / HERE / "provenance.json"
    edit(path, lambda values: values.update(resumed=[{**values}, {**values}]))
    edit(path, lambda values: other_machine(values["resumed"][1]))
    assert command("record", str(runs / "sweep" / HERE), "--to", "new")[0] == 0
    (run,) = read_record(Path("new")).runs
    assert [part.processor == "Another" for part in run.parts] == [False, False, True]
    assert "| 3 | A, B |" in Path("new/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.9, 0.8], (0.9, 1)),
        ([0.8, 0.9, 0.9], (0.9, 2)),
        ([None, 0.9, None, 0.8], (0.9, 2)),
        ([None, None, 0.9], (None, None)),  # looked at once, after the last epoch
        ([], (None, None)),
    ],
)
def test_there_is_a_best_epoch_only_where_one_was_chosen_on_the_test_set(accuracies: Any, expected: Any) -> None:
    assert best_of(accuracies) == expected


def test_a_record_whose_test_set_was_looked_at_once_has_no_best(record: Record) -> None:
    once = tuple(
        replace(
            run,
            best_test_accuracy=None,
            best_test_epoch=None,
            curves={**run.curves, "test_accuracy": (None, run.final_test_accuracy), "test_loss": (None, 0.5)},
        )
        for run in record.runs
    )
    honest = parse_record(replace(record, runs=once).to_text())
    page = record_page(honest, Path("digits/README.md"))
    assert "The test set was looked at once, after the last epoch." in page
    assert "best test" not in page
    assert "not chosen" in overview({"honest": honest})["table"]
    assert overview({"honest": honest})["selection"] == NONE_YET


def test_the_figures_of_the_page_are_those_of_the_record(record: Record) -> None:
    finals = [run.final_test_accuracy for run in record.runs]
    mean = sum(finals) / 2
    sd = (((finals[0] - mean) ** 2 + (finals[1] - mean) ** 2) / 1) ** 0.5
    page = record_page(record, Path("digits/README.md"))
    assert f"{100 * mean:.2f} ± {100 * sd:.2f}%" in page
    assert f"| lowest | {100 * min(run.best_test_accuracy or 0 for run in record.runs):.2f}% |" in page
    assert "Target 93.00%: missed by the mean final test accuracy; 0 of 2 seeds reach it." in page
    command = "era-cnn -m experiment=model_4_digits trainer.epochs=2 threads=1 device=cpu seed=1,2 hydra/launcher=local"
    assert command in page
    assert "| total |  |  | 7,616 | 20 before the global pooling |" in page
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["Target", "Result", "Analysis", "Layers", "Log"]


def test_a_single_seed_has_no_spread(record: Record) -> None:
    page = record_page(on_mnist(record, runs=record.runs[:1]), Path("model_4/README.md"))
    assert "mean ± sd" not in page
    assert "sd is" not in page
    assert "| reference | 99.35% |" in page
    assert "- Target 93.00%: missed by the final test accuracy.\n" in page


def test_the_target_that_is_reached_is_met(record: Record) -> None:
    good = tuple(replace(run, final_test_accuracy=0.94) for run in record.runs)
    page = record_page(replace(record, runs=good), Path("digits/README.md"))
    assert "Target 93.00%: met by the mean final test accuracy; 2 of 2 seeds reach it." in page


WANTED = 0.93
MEANS = {
    # A mean that is the target, but as a binary number below it: 0.9299999999999999
    (0.92, 0.94): "met by the mean final test accuracy; 1 of 2 seeds reaches it.",
    (0.92996, 0.93): "missed by the mean final test accuracy (92.9980%); 1 of 2 seeds reaches it.",
    (0.92, 0.93, 0.943): "met by the mean final test accuracy, whose 95% interval, 90.24 to 95.96%, contains it; 2 of 3 ",
    (0.90, 0.91, 0.943): "missed by the mean final test accuracy, whose 95% interval, 86.18 to 97.36%, contains it; 1 of ",
    (0.95, 0.951, 0.952): "met by the mean final test accuracy; 3 of 3 ",
}  # fmt: skip


@pytest.mark.parametrize("values", MEANS)
def test_whether_a_target_is_met_and_how_sure_that_is(values: tuple[float, ...], record: Record) -> None:
    assert record.parsed.target.test_accuracy == WANTED
    runs = tuple(
        replace(record.runs[0], seed=seed, final_test_accuracy=value) for seed, value in enumerate(values, start=1)
    )
    page = record_page(replace(record, runs=runs), Path("digits/README.md"))
    assert f"- Target 93.00%: {MEANS[values]}" in page


def on_mnist(record: Record, **changes: Any) -> Record:
    """The same runs, as if they had been trained on MNIST."""
    data = {"name": "mnist", "root": "data", "mean": [0.1307], "std": [0.3081], "val_size": 0}
    changes = {"experiment": "model_4", "overrides": ("experiment=model_4", "threads=1"), **changes}
    return replace(record, config={**record.config, "data": data}, **changes)


def test_the_reference_stands_beside_a_record_of_its_name(record: Record) -> None:
    page = record_page(on_mnist(of_three_seeds(record)), Path("model_4/README.md"))
    assert "| reference | 99.35% |" in page
    assert "The reference's best test accuracy, 99.35% in one run, lies " in page
    assert "eference" not in record_page(record, Path("digits/README.md"))


@pytest.mark.parametrize(
    ("word", "is_there"),
    [
        ("trainer.epochs=2", False),
        ("name=model_4", False),
        ("optimizer.lr=0.02", False),
        ("device=cuda", True),
        ("trainer.cuda_graphs=true", True),
        ("portable=true", True),
        ("trainer.profile=true", True),
    ],
)
def test_the_reference_stands_beside_its_own_recipe_alone(word: str, is_there: bool, record: Record) -> None:
    changed = on_mnist(of_three_seeds(record), overrides=("experiment=model_4", word))
    assert ("eference" in record_page(changed, Path("model_4/README.md"))) == is_there


def test_nor_beside_an_experiment_of_ones_own_that_is_called_so(record: Record) -> None:
    run = replace(record.runs[0], command=("era-cnn", "--config-dir", "mine", "experiment=model_4"))
    assert "eference" not in record_page(on_mnist(record, runs=(run,)), Path("model_4/README.md"))


def test_the_interval_of_the_mean_stands_beside_that_of_one_more_run(record: Record) -> None:
    """Student's t of 2 degrees of freedom is 4.303 at 97.5%."""
    values = spread(three := of_three_seeds(record), "final_test_accuracy")
    assert values is not None
    assert values.sd is not None
    half = 4.302653 * values.sd / 3**0.5
    page = record_page(three, Path("digits/README.md"))
    (line,) = [line for line in page.splitlines() if line.startswith("| mean, 95% |")]
    assert f"{100 * (values.mean - half):.2f} to {100 * (values.mean + half):.2f}%" in line


@pytest.mark.parametrize(
    ("reference", "expected"),
    [(0.992, "lies within what the recipe gives: 98.95 to 99.45%"), (0.995, "lies outside what the recipe gives")],
)
def test_a_single_figure_is_judged_by_the_interval_of_one_more_run(reference: float, expected: str) -> None:
    # mean 0.992, sd 0.0005 and n = 3: 0.992 ± 4.303 · 0.0005 · sqrt(4/3)
    assert place_of(reference, Spread((0.9915, 0.992, 0.9925))).startswith(expected)


def test_two_seeds_give_no_interval_in_which_anything_lies(record: Record) -> None:
    assert place_of(0.5, Spread((0.98, 0.99))) == "can't be judged: that takes at least 3 seeds that differ"
    page = record_page(record, Path("digits/README.md"))
    assert "one more run" not in page
    assert "| mean ± sd |" in page
    assert "one more run, 95%" in record_page(of_three_seeds(record), Path("digits/README.md"))


@pytest.mark.parametrize("values", [(0.98,), (0.98, 0.98, 0.98)])
def test_a_figure_is_not_judged_without_a_spread(values: tuple[float, ...]) -> None:
    assert place_of(0.99, Spread(values)).startswith("can't be judged")


def test_what_choosing_on_the_test_set_is_worth_is_measured_on_all_runs(record: Record) -> None:
    gains = [100 * ((run.best_test_accuracy or 0) - run.final_test_accuracy) for run in record.runs]
    text = overview({"one": record, "two": replace(record, runs=record.runs[:1])})["selection"]
    mean, sd = sum(gains) / 2, abs(gains[0] - gains[1]) / 2**0.5
    assert f"| one | 2 | {mean:.3f} ± {sd:.3f} | {max(gains):.3f} |" in text
    assert f"| two | 1 | {gains[0]:.3f} | {gains[0]:.3f} |" in text
    low, high = sorted([mean, gains[0]])
    assert f"Choosing is worth from {low:.3f} to {high:.3f} percentage points on average" in text
    assert f", and up to {max(gains):.3f} in a single run." in text
    assert f"Choosing is worth {mean:.3f} percentage points on average" in overview({"one": record})["selection"]
    page = record_page(record, Path("digits/README.md"))
    assert f"is too optimistic; here it is {mean:.3f} ± {sd:.3f} percentage points above the final one" in page


def test_hostile_text_stays_in_its_place(record: Record) -> None:
    evil = "x=1\n<!-- end of result -->\n```\n# <script>"
    hostile = replace(record, overrides=(evil,), superseded=evil, experiment=evil)
    page = record_page(hostile, Path("<b>/README.md"))
    assert blocks_in(page) == ["result", "layers", "log"]
    assert page.count("\n<!-- end of result -->\n") == 1
    assert "\n# <script>" not in page
    assert record_page(hostile, Path("<b>/README.md"), page) == page
    table = overview({"a|b)": hostile})["table"]
    assert len(table.splitlines()) == 3
    selection = overview({"a|b*": replace(hostile, superseded=None)})["selection"]
    assert selection.splitlines()[2].startswith(r"| a\|b\* | 2 |")


@pytest.fixture
def overviewed(folder: Path) -> Path:
    """The folder of a record, in a folder whose page has every mark."""
    page = "\n\n".join(["# Evidence", *map(block, ("table", "frontier", "selection", "networks")), "My words."])
    (folder.parent / "README.md").write_text(page, encoding="utf-8")
    return folder


def test_recording_writes_the_page_beside_it_again(overviewed: Path, runs: Path, command: Command) -> None:
    assert command("record", str(runs / "other"), "--to", str(overviewed.parent / "faster"))[0] == 0
    text = (overviewed.parent / "README.md").read_text(encoding="utf-8")
    assert "| [digits](digits/README.md) | 7,616 | 2 | 2 |" in text
    assert "| [faster](faster/README.md) | 7,616 | 2 | 1 |" in text
    assert text.endswith("My words.")
    assert (overviewed.parent / "frontier.svg").exists()
    assert command("record", str(runs / "cycled"), "--to", str(overviewed.parent / "before"))[0] == 0
    assert command("record", "--check", str(overviewed.parent))[0] == 0


def test_a_page_that_differs_from_its_records_is_found_and_written_again(
    overviewed: Path, tmp_path: Path, command: Command
) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text(f"Claims.\n\n{block('networks', 'model_99 reaches 100%.')}\n", encoding="utf-8")
    paths = [str(overviewed.parent), str(page)]
    assert command("record", "--update", *paths)[0] == 0
    assert "model_99" not in page.read_text(encoding="utf-8")
    code, out, _ = command("record", "--check", *paths)
    assert (code, out.splitlines()[-1]) == (0, "1 record: all pages are current.")
    assert command("record", "--update", *paths)[1] == "Nothing to write: all pages are current.\n"
    for changed in (overviewed / "README.md", overviewed.parent / "README.md", page):
        whole = changed.read_text(encoding="utf-8")
        changed.write_text(re.sub(r"(\d\d\.\d\d) ±", "99.99 ±", whole), encoding="utf-8")
        code, out, _ = command("record", "--check", *paths)
        assert code == 1
        assert out.splitlines()[0].removeprefix("Not current: ") in str(changed)
        changed.write_text(whole, encoding="utf-8")


@pytest.mark.parametrize("name", ["digits/curves.svg", "frontier.svg"])
def test_a_picture_of_other_records_is_found_but_not_one_that_another_machine_drew(
    name: str, overviewed: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = str(overviewed.parent)
    assert command("record", "--update", paths)[0] == 0
    picture = overviewed.parent / name
    drawn = picture.read_bytes()
    monkeypatch.setattr(charts.Chart, "_saved", lambda chart, kind, **options: b"<svg lang='de'/>")
    assert command("record", "--check", paths)[0] == 0
    picture.write_bytes(drawn.replace(b"\n", b"\r\n"))
    assert command("record", "--check", paths)[0] == 0
    shown = re.search(rb"shows: (\w+);", drawn)
    assert shown is not None
    others = {
        "other figures": drawn.replace(shown[1], b"0" * 64),
        "changed": drawn.replace(b"<svg/>", b"<svg>"),
        "cut": drawn.splitlines()[-1],
        "empty": b"",
    }
    for other in others.values():
        picture.write_bytes(other)
        code, out, _ = command("record", "--check", paths)
        assert (code, out.splitlines()[0].endswith(name)) == (1, True)


END = "<!-- end of result -->\n"
MOVED: dict[str, tuple[Callable[[str], str], str]] = {
    "below the analysis": (
        lambda page: page.replace(END, "").replace("\n## Layers\n", f"\n{END}\n## Layers\n"),
        "must have only generated text between the marks of result, got a heading. Move the marks back",
    ),
    "below the next part": (
        lambda page: re.sub(r"(?m)^## .*\n", "", page).replace(END, "") + END,
        "must have the end of a part before the next one begins, got marks in another order.",
    ),
    "the end is gone": (lambda page: page.replace(END, ""), "must have the lines <!-- records: result, generated by"),
    "one end is gone": (
        lambda page: page.replace(END, block("result").splitlines()[0] + "\nMy words.\n" + END, 1),
        "must have the end of a part before the next one begins",
    ),
    "a part of another page": (lambda page: page + block("table"), "must have marks of result, layers, log, got table."),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVED)
def test_marks_that_were_moved_cost_nobody_their_words(case: str, folder: Path, runs: Path, command: Command) -> None:
    change, message = MOVED[case]
    page = folder / "README.md"
    page.write_text(change(page.read_text(encoding="utf-8")), encoding="utf-8")
    before = files_in(folder)
    for words in (["record", "--update", str(folder)], ["record", str(runs / "sweep"), "--to", str(folder)]):
        code, out, err = command(*words)
        assert (code, out, len(err.splitlines())) == (4, "", 1)
        assert message in err
    assert files_in(folder) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block("networks").splitlines()[0], "PAGE.md must have the lines <!-- records: networks, generated by"),
        (block("table"), "PAGE.md must have marks of selection, networks, got table. Correct or remove them."),
        (block("netwroks"), "got netwroks"),
    ],
)
def test_a_page_elsewhere_has_whole_parts_without_links(
    text: str, message: str, folder: Path, command: Command
) -> None:
    Path("PAGE.md").write_text(text, encoding="utf-8")
    code, out, err = command("record", "--check", str(folder.parent), "PAGE.md")
    assert (code, out) == (4, "")
    assert message in err


def test_what_watched_the_test_set_is_called_too_optimistic(record: Record) -> None:
    trainer = {**record.config["trainer"], "watch": "test_accuracy", "stop_at_target": True}
    runs = tuple(replace(run, end_reason="test_accuracy has reached the target, 0.93") for run in record.runs)
    watched = replace(record, config={**record.config, "trainer": trainer}, runs=runs)
    page = record_page(watched, Path("digits/README.md"))
    assert (
        "- The training watched test_accuracy, so its test accuracies are too optimistic, the final one as well."
        in page
    )
    assert "the final one is not" not in page
    assert "- 2 of 2 seeds ended before the last epoch: test_accuracy has reached the target, 0.93." in page
    texts = overview({"digits": watched})
    assert texts["selection"] == NONE_YET
    assert "%, watched |" in texts["table"]
    assert "watched" not in overview({"digits": record})["table"]


def test_a_page_that_is_missing_or_came_from_windows_is_written_again(folder: Path, command: Command) -> None:
    page = folder / "README.md"
    whole = page.read_bytes()
    for damage in (page.unlink, lambda: page.write_bytes(whole.replace(b"\n", b"\r\n"))):
        damage()
        code, out, err = command("record", "--check", str(folder))
        assert (code, out.splitlines()[0], err) == (1, "Not current: experiments/digits/README.md", "")
        assert command("record", "--update", str(folder)) == (0, "Written: experiments/digits/README.md\n", "")
        assert page.read_bytes() == whole


def test_analyses_that_nobody_has_written_are_listed(folder: Path, command: Command) -> None:
    _, out, _ = command("record", "--check", str(folder))
    assert f"To be written: the analysis in {folder.relative_to(Path.cwd())}/README.md." in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["record", "x"], 2, "one of the arguments --to --update --check --repeat is required"),
        (["record", "--check", "--update", "x"], 2, "--update must be used without --check"),
        (["record", "x", "--to", "$HOME/x"], 2, "--to must be a path without quotes, variables and the like"),
        (["record", "x", "--to", "y"], 4, "RUN must be the folder of a run, got '"),
        (["record", "--check", "x"], 2, "FOLDER must be a record, or a folder of records, got 'x'"),
        (
            ["record", "--check", "new", "page.md"],
            4,
            "page.md must be a page in Markdown, got: No such file or directory",
        ),
        (["record", "--check", "new", "plain.md"], 4, "plain.md must have the marks of a generated part, got none."),
        (
            ["record", "--repeat", "new", "plain.md"],
            2,
            "FOLDER must be a record, or a folder of records, got 'plain.md'",
        ),
        (["record", "--repeat", "new", "x"], 2, "FOLDER must be a record, or a folder of records, got 'x'"),
        (["record", "x", "--to", ""], 2, "--to must be a path without line breaks and the like, got ''. Give a path."),
    ],
)
def test_what_is_typed_wrong(words: list[str], code: int, message: str, command: Command, capsys: Any) -> None:
    Path("plain.md").write_text("No marks.\n", encoding="utf-8")
    Path("new").mkdir()
    Path("new", "README.md").write_text(block("table"), encoding="utf-8")
    try:
        got, _, err = command(*words)
    except SystemExit as end:
        got, err = end.code, capsys.readouterr().err
    assert got == code
    assert message in err


def test_a_record_whose_config_has_changed_since_says_so(overviewed: Path, record: Record) -> None:
    def changed(record: Record) -> Any:
        return composed([*record.overrides, "optimizer.lr=0.5"])

    assert why_superseded(record, composes) is None
    assert why_superseded(record, changed) == "optimizer.lr is now 0.5, was 0.01"
    assert "optimizr must be a key" in (why_superseded(replace(record, overrides=("+optimizr.lr=1",)), composes) or "")
    assert check([overviewed], changed) == 1


def test_a_superseded_record_says_so_on_its_page_and_in_no_table_of_figures(record: Record) -> None:
    old = replace(record, superseded="optimizer.lr is now 0.5")
    assert "**Superseded**: the command no longer trains these runs" in record_page(old, Path("digits/README.md"))
    assert "[digits (superseded)]" in overview({"digits": old})["table"]
    assert overview({"digits": old})["networks"] == NONE_YET
    assert parse_record(old.to_text()) == old


def test_the_reason_is_always_the_present_one(folder: Path, command: Command) -> None:
    before = [*read_record(folder).overrides]
    for word, why in (
        ("optimizer.lr=0.5", "optimizer.lr is now 0.5, was 0.01"),
        ("model.dropout=0.2", "model.dropout is now 0.2, was 0.1"),
        ("seed=1", None),
    ):
        edit(folder / RECORD, partial(dict.update, overrides=[*before, word]))
        line = f"experiments/digits: superseded: {why}."
        code, out, _ = command("record", "--check", str(folder))
        assert (code, line in out.splitlines()) == (1, why is not None)
        code, out, _ = command("record", "--update", str(folder))
        assert (code, line in out.splitlines()) == (0, why is not None)
        assert read_record(folder).superseded == why


OWN = "# @package _global_\ndefaults: [model_4_digits]\nname: own\ntrainer: {epochs: 2}\n"
OWN_FILES = ["--config-dir", "mine", "--plugin", "own.py"]


@pytest.fixture
def with_own_files(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with an experiment of one's own and a plugin, which the runs of the record used."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(OWN, encoding="utf-8")
    (tmp_path / "mine" / "own.py").write_text("", encoding="utf-8")

    def of_own_files(values: dict[str, Any]) -> None:
        values.update(experiment="own", overrides=["experiment=own", "threads=1"])
        values["config"]["name"] = "own"
        for run in values["runs"]:
            run["command"] = ["era-cnn", *OWN_FILES, "experiment=own"]

    edit(folder / RECORD, of_own_files)
    with nothing_stays_registered():
        yield tmp_path / "mine"


@pytest.mark.parametrize("mode", ["--check", "--update", "--repeat", "--to"])
@pytest.mark.parametrize("given", ["nothing", "--config-dir", "--plugin"])
def test_a_record_is_not_superseded_because_its_own_files_are_not_given(
    mode: str, given: str, with_own_files: Path, folder: Path, runs: Path, command: Command
) -> None:
    """Without them its config can't be composed, or another one of the same name is."""
    if given == "--config-dir":  # which holds another experiment of that name
        (with_own_files / "experiment" / "own.yaml").write_text(OWN.replace("2", "3"), encoding="utf-8")
    options = {"--config-dir": with_own_files, "--plugin": with_own_files / "own.py"}
    words = [given, str(options[given])] if given in options else []
    before = (folder / RECORD).read_bytes()
    paths = [str(runs / "sweep"), mode, str(folder)] if mode == "--to" else [mode, str(folder)]
    code, _, err = command("record", *words, *paths)
    assert code == 4
    assert "A record must be composed with the files that its runs used, got a command without them." in err
    lacking = {"nothing": "--config-dir mine --plugin own.py", "--config-dir": "--plugin own.py"}
    assert f"Give {lacking.get(given, '--config-dir mine')}." in err
    assert read_record(folder).superseded is None
    assert mode == "--update" or (folder / RECORD).read_bytes() == before


def test_with_its_own_files_a_record_is_current_or_superseded(
    with_own_files: Path, folder: Path, runs: Path, command: Command
) -> None:
    options = ["--config-dir", str(with_own_files), "--plugin", str(with_own_files / "own.py")]
    assert command("record", *options, str(runs / "sweep"), "--to", str(folder))[0] == 0
    assert read_record(folder).overrides == ("experiment=own", "threads=1")
    assert command("record", *options, "--check", str(folder))[0] == 0
    (with_own_files / "experiment" / "own.yaml").write_text(OWN.replace("2", "3"), encoding="utf-8")
    assert command("record", *options, "--update", str(folder))[0] == 0
    assert read_record(folder).superseded == "trainer.epochs is now 3, was 2"


def test_a_record_that_composes_without_its_own_files_needs_none(folder: Path, command: Command) -> None:
    assert command("record", "--update", str(folder))[0] == 0
    edit(folder / RECORD, lambda values: values["runs"][0].update(command=["era-cnn", *OWN_FILES]))
    assert command("record", "--update", str(folder))[0] == 0
    assert read_record(folder).superseded is None


def test_a_record_that_lacks_its_own_files_keeps_no_page_from_being_written(
    overviewed: Path, with_own_files: Path, folder: Path, command: Command
) -> None:
    code, _, err = command("record", "--update", str(overviewed))
    assert (code, err.startswith("experiments/digits: A record must be composed with")) == (4, True)
    assert "| [digits](digits/README.md) |" in (overviewed.parent / "README.md").read_text(encoding="utf-8")


def test_a_key_with_its_default_changes_no_record(record: Record) -> None:
    """As long as adding a key to the schema keeps digests, records stay current."""
    values = json.loads(record.to_text())
    del values["config"]["trainer"]["ema_decay"]
    assert parse_record(json.dumps(values)).config_sha256 == record.config_sha256


@pytest.mark.slow
def test_the_first_epoch_can_be_repeated(folder: Path, command: Command, tmp_path: Path) -> None:
    before = files_in(folder)
    code, out, err = command("record", "--repeat", str(folder.parent))
    assert (code, err) == (0, "")
    (again,) = tmp_path.glob("outputs/*/*_model_4_digits_evidence")
    folder_of_it = f"Run folder: {again.relative_to(tmp_path)}"
    assert out == f"experiments/digits: seed 1 is equal, bit for bit, after its first epoch. {folder_of_it}\n"
    assert files_in(folder) == before
    assert len((again / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.slow
def test_the_repeated_epoch_is_that_of_the_recorded_seed_and_of_the_whole_schedule(
    runs: Path, command: Command
) -> None:
    assert command("record", str(runs / "cycled"), "--to", "experiments/cycled")[0] == 0
    code, out, err = command("record", "--repeat", "experiments/cycled")
    assert (code, err) == (0, "")
    assert out.startswith("experiments/cycled: seed 3 is equal, bit for bit, after its first epoch. ")


def forged(values: dict[str, Any]) -> None:
    values["runs"][0]["first_epoch_sha256"] = "0" * 64


def elsewhere(values: dict[str, Any]) -> None:
    forged(values)
    for run in values["runs"]:
        run["parts"][0]["processor"] = "Another"


def by_three_seeds(values: dict[str, Any]) -> None:
    values["runs"].append({**copy.deepcopy(values["runs"][1]), "seed": 3})
    elsewhere(values)


def in_a_narrow_band(values: dict[str, Any]) -> None:
    """Seeds that agree on an accuracy which this machine does not reach."""
    by_three_seeds(values)
    for number, run in enumerate(values["runs"]):
        run["curves"]["train_accuracy"][0] = 0.01 + number * 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (forged, 1, "The first epoch of seed 1 must be equal to that of outputs/"),
        (
            by_three_seeds,
            0,
            "another kind of machine or other packages, so not the same bits; its training accuracy after the",
        ),
        (in_a_narrow_band, 1, "The training accuracy of the first epoch must lie in the band of its record, got "),
        (elsewhere, 0, "the record has too few seeds to state a band."),
        (lambda values: values.update(data_sha256="0" * 64), 1, "The first epoch must be trained on the recorded data"),
    ],
)
def test_a_first_epoch_that_differs(
    change: Callable[[dict[str, Any]], None], code: int, message: str, folder: Path, command: Command
) -> None:
    edit(folder / RECORD, change)
    got, out, err = command("record", "--repeat", str(folder))
    assert got == code
    assert message in (err if code else out)


def on_a_gpu(values: dict[str, Any]) -> None:
    """As if its runs had been trained with CUDA graphs."""
    by_three_seeds(values)
    values["overrides"] += ["device=cuda", "trainer.cuda_graphs=true"]
    values["config"]["device"], values["config"]["trainer"]["cuda_graphs"] = "cuda", True
    values["config_sha256"] = digest_without_seed(parse({**upgraded(values["config"]), "seed": 1}, is_stored=True))
    for part in (part for run in values["runs"] for part in run["parts"]):
        part["device"] = "NVIDIA H100"


@pytest.mark.slow
def test_a_record_of_a_gpu_is_repeated_without_one(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    edit(folder / RECORD, on_a_gpu)
    code, out, err = command("record", "--repeat", str(folder))
    assert code == 0, err
    assert out.startswith("experiments/digits: this machine has no cuda, so the epoch is trained on cpu.\n")
    assert "its training accuracy after the first epoch lies in the band" in out
    edit(folder / RECORD, lambda values: values.update(runs=values["runs"][:1]))
    code, out, _ = command("record", "--repeat", str(folder))
    assert code == 0
    assert out.startswith("experiments/digits: this machine has no cuda, and elsewhere nothing to compare with:")


@pytest.mark.slow
def test_the_seed_that_is_repeated_is_one_of_a_device_that_is_here(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_on_a_gpu(values: dict[str, Any]) -> None:
        values["runs"][0]["parts"][0]["device"] = "NVIDIA H100"

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    edit(folder / RECORD, first_on_a_gpu)
    code, out, err = command("record", "--repeat", str(folder))
    assert code == 0, err
    assert out.startswith("experiments/digits: seed 2 is equal, bit for bit, after its first epoch. ")


@pytest.mark.slow
@pytest.mark.parametrize(("stands_twice", "seed"), [(True, 1), (False, 2)])
def test_the_seed_that_is_repeated_is_one_of_this_kind_of_machine(
    stands_twice: bool, seed: int, folder: Path, command: Command
) -> None:
    """Only there, bits can be compared. The second result of a seed is as good as another seed."""

    def first_elsewhere(values: dict[str, Any]) -> None:
        here = copy.deepcopy(values["runs"][0])
        forged(values)
        values["runs"][0].update(weights_sha256="0" * 64)
        values["runs"][0]["parts"][0]["processor"] = "Another"
        values["runs"][1:1] = [here] if stands_twice else []

    edit(folder / RECORD, first_elsewhere)
    code, out, err = command("record", "--repeat", str(folder))
    assert code == 0, err
    assert out.startswith(f"experiments/digits: seed {seed} is equal, bit for bit, after its first epoch. ")


def test_a_machine_is_told_by_what_is_known_of_it(record: Record) -> None:
    for cores, shown in ((1, ", 1 core, "), (2, ", 2 cores, "), (None, ", 1 thread on cpu")):
        part = replace(record.runs[0].parts[0], cores=cores, cpu_capability="AVX2")
        page = record_page(
            replace(record, runs=(replace(record.runs[0], parts=(part,)),)), Path("digits/README.md")
        )  # fmt: skip
        assert f", AVX2{shown}" in page


@pytest.mark.parametrize(
    ("seeds", "shown"),
    [
        (range(1, 7), "'seed=range(1,7)'"),
        (range(1, 6), "seed=1,2,3,4,5"),
        ((1, 2, 3, 4, 5, 7), "seed=1,2,3,4,5,7"),
        ((3, 4, 5, 6, 7, 8, 9), "'seed=range(3,10)'"),
    ],
)
def test_many_seeds_in_a_row_are_a_range(seeds: Sequence[int], shown: str, record: Record) -> None:
    runs = tuple(replace(record.runs[0], seed=seed) for seed in seeds)
    (command,) = commands_of(replace(record, runs=runs))
    assert f" {shown} hydra/launcher=local" in command


def test_a_portable_record_demands_equal_bits_on_every_processor(record: Record) -> None:
    here = record.runs[0].parts[0]
    there = replace(here, processor="Another", cpu_capability="AVX2", threads=9)
    assert here.kind(portable=True) == there.kind(portable=True)
    assert here.kind(portable=False) != there.kind(portable=False)
    assert here.kind(portable=True) != replace(there, torch="1.0").kind(portable=True)


def test_the_arithmetic_of_a_portable_record_is_chosen_before_it_is_repeated(folder: Path, command: Command) -> None:
    def make_portable(values: dict[str, Any]) -> None:
        values["config"]["portable"] = True
        values["overrides"].append("portable=true")
        config = parse({**upgraded(values["config"]), "seed": 1})
        values["config_sha256"] = digest_without_seed(config)

    edit(folder / RECORD, make_portable)
    code, out, err = command("record", "--repeat", str(folder))
    assert (code, out) == (2, "")
    assert "portable must be false in a process that has imported torch, got true. Start a new one" in err


def test_a_command_whose_plugin_has_imported_torch_may_start_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Record, "portable", True)
    with pytest.raises(TooLateError, match="portable must be false in a process that has imported torch"):
        recording._repeat([folder], read_line(["record", "--repeat", str(folder)], VERBS))


def test_a_superseded_record_is_not_repeated(folder: Path, command: Command) -> None:
    edit(folder / RECORD, lambda values: values["overrides"].__setitem__(1, "trainer.epochs=3"))
    code, out, _ = command("record", "--repeat", str(folder))
    assert code == 0
    assert out == "experiments/digits: superseded, so nothing to repeat: trainer.epochs is now 3, was 2.\n"


def test_a_page_is_not_made_of_records_that_have_one_name(folder: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(folder, tmp_path / "others" / "digits")
    (tmp_path / "PAGE.md").write_text(block("networks"), encoding="utf-8")
    assert command("record", "--check", "experiments", "others")[0] == 0
    before = files_in(tmp_path)
    code, out, err = command("record", "--update", "experiments", "others", "PAGE.md")
    got = "experiments/digits and others/digits. Update the pages with one of the folders."
    rule = "FOLDER must hold records of different names, which pages show"
    assert (code, out, err) == (2, "", f"{rule}, got {got}\n")
    assert files_in(tmp_path) == before


def test_a_page_that_quotes_other_records_is_not_that_of_its_folder(runs: Path, command: Command) -> None:
    """As the README of a project quotes those in experiments/: it is written where it is named, and by nothing else."""
    Path("README.md").write_text(block("networks", "| experiments/ | 99% |"), encoding="utf-8")
    assert command("record", str(runs / "other"), "--to", "mine")[0] == 0
    assert "| experiments/ | 99% |" in Path("README.md").read_text(encoding="utf-8")
    assert command("record", "--update", "mine", "README.md")[1] == "Written: README.md\n"


def test_a_folder_that_has_two_names_is_locked_and_counted_once(overviewed: Path, command: Command) -> None:
    Path("linked").symlink_to(overviewed.parent)
    assert command("record", "--update", "linked/digits", "experiments")[0] == 0
    page = str(overviewed.parent / "README.md")
    code, out, _ = command("record", "--check", "linked", "experiments", page)
    assert (code, out.splitlines()[-1]) == (0, "1 record: all pages are current.")


@pytest.mark.parametrize("path", ["..", "../../experiments/digits", "../digits/../digits"])
def test_a_record_may_be_called_from_within(path: str, overviewed: Path, runs: Path, command: Command) -> None:
    edit(overviewed / RECORD, lambda values: values["runs"].pop())
    (overviewed / "below").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(overviewed / "below" if path == ".." else overviewed)
        assert command("record", str(runs / "sweep"), "--to", path)[0] == 0
    assert "| [digits](digits/README.md) | 7,616 | 2 | 2 |" in (overviewed.parent / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_what_keeps_an_epoch_from_being_repeated_is_said(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise DataError("The images must be whole, got half of them. Fetch them again.")

    monkeypatch.setattr("era_cnn.runs.run.read_data", fail)
    code, out, err = command("record", "--repeat", str(folder))
    assert (code, out) == (3, "")
    assert err == "experiments/digits: The images must be whole, got half of them. Fetch them again.\n"
    assert not [*Path.cwd().glob("outputs/*/*_evidence")]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_repetitions(
    number: signal.Signals, expected: int, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, folder.parent / "twice")
    started = []

    def stopped(config: RunConfig) -> None:
        started.append(config)
        signal.raise_signal(number)

    monkeypatch.setattr("era_cnn.runs.run.read_data", stopped)
    code, out, err = command("record", "--repeat", str(folder.parent))
    assert (code, out, len(started)) == (expected, "", 1)
    assert re.fullmatch(r"Interrupted\. Run folder: outputs/\S+_evidence\n", err)


def test_a_place_where_no_epoch_can_be_repeated(folder: Path, command: Command) -> None:
    Path("outputs").write_text("A file.\n", encoding="utf-8")
    code, out, err = command("record", "--repeat", str(folder))
    assert (code, out) == (4, "")
    assert "must be a folder that can be created" in err
    assert err.endswith(" Change to another folder with cd.\n")


def of_three_seeds(record: Record) -> Record:
    return replace(record, runs=(*record.runs, replace(record.runs[1], seed=3)))


def test_the_band_is_that_of_one_more_run_with_99_percent(record: Record) -> None:
    """Student's t of 2 degrees of freedom is 9.925 at 99.5%."""
    assert first_epoch_band(record) is None
    record = of_three_seeds(record)
    values = [run.curves["train_accuracy"][0] or 0.0 for run in record.runs]
    half = 9.924843 * statistics.stdev(values) * (4 / 3) ** 0.5
    assert first_epoch_band(record) == pytest.approx((statistics.fmean(values) - half, statistics.fmean(values) + half))


@pytest.mark.slow
@pytest.mark.draw
def test_equal_records_give_equal_charts(record: Record) -> None:
    for chart in (curves(on_mnist(record)), frontier({"model_4": on_mnist(record)}, public_runs())):
        assert chart.svg_on_white() == chart.svg_on_white()
        assert b"accuracy" in chart.svg_on_white()
    text = curves(on_mnist(record)).svg_on_white().decode()
    assert "test, reference" in text
    assert "training, mean of 2" in text


@pytest.mark.draw
@pytest.mark.parametrize("names", [["model_4", "model_4_dropout25"], ["a", "b", "c", "d"]])
def test_no_label_of_the_frontier_covers_another(names: list[str], record: Record) -> None:
    figure = Figure((8.0, 4.5))
    frontier(dict.fromkeys(names, record), public_runs()).draw(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in figure.axes[0].texts}
    assert boxes.keys() > {*names}
    overlapping = [pair for pair in itertools.combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])]
    assert not overlapping


@pytest.mark.draw
def test_a_network_of_millions_is_named_below_the_frontier(record: Record) -> None:
    large = replace(record, network=record.network.model_copy(update={"params": 6_379_786}))
    records = {"model_1": on_mnist(large), "model_4": on_mnist(record)}
    drawn = frontier(records, ()).svg_on_white()
    assert b"model_4" in drawn
    assert b"model_1" not in drawn
    assert (
        "Not in the picture, with more than 100,000 parameters: model_1 (6,379,786; " in overview(records)["frontier"]
    )
    assert "Not in the picture" not in overview({"model_4": on_mnist(record)})["frontier"]


@pytest.mark.draw
def test_a_record_of_one_epoch_has_a_chart(record: Record) -> None:
    short = [replace(run, curves={key: values[:1] for key, values in run.curves.items()}) for run in record.runs]
    assert curves(replace(record, runs=tuple(short[:1]))).svg_on_white().startswith(b"<?xml")


def test_marks_within_a_page_are_replaced_alone() -> None:
    page = f"above\n{block('table', 'old')}\nbetween\n{block('log')}\nbelow"
    now = replaced(page, {"table": r"\1 new", "log": "lines", "missing": "x"})
    table, log = block("table", r"\1 new"), block("log", "lines")
    assert now == f"above\n{table}\nbetween\n{log}\nbelow"
