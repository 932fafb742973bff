from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from era_cnn.config.yamltext import as_yaml, parse_yaml
from era_cnn.errors import RunFolderError
from era_cnn.folders.outcome import read_outcome
from era_cnn.folders.run import RunFolder
from era_cnn.folders.schemas import parse_fingerprints, parse_json, parse_metrics, parse_steps
from era_cnn.folders.sweep import SweepFolder
from era_cnn.sweeps.request import Request

EARLIER = Path(__file__).parent / "schema_1" / "completed"
NAMES = ("status.json", "result.json", "provenance.json")
ODD: tuple[Any, ...] = (-1, 2**70, "x", [], {}, [[]], 1e300)


def _places(values: Any, way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The way to each value of nested objects."""
    inner = [place for key in values for place in _places(values[key], (*way, key))] if isinstance(values, dict) else []
    return ([way] if way else []) + inner


def _changed(values: dict[str, Any], way: tuple[str, ...], value: object) -> dict[str, Any]:
    key, *rest = way
    return {**values, key: _changed(values[key], tuple(rest), value) if rest else value}


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((EARLIER / name).read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", NAMES)
def test_files_of_an_earlier_version_are_read(name: str) -> None:
    assert parse_json(name, (EARLIER / name).read_text(encoding="utf-8")) == read(name)


@pytest.mark.parametrize("text", ["[]", "{}", "null", "1", "", "{", "[" * 5000, '{"state": NaN}', "\x00"])
@pytest.mark.parametrize("name", ["status.json", "result.json"])
def test_files_that_hold_something_else_are_damaged(name: str, text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_json(name, text)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_value_is_changed_to_the_outcome_can_be_read(name: str, tmp_path: Path) -> None:
    for other in NAMES:
        (tmp_path / other).write_bytes((EARLIER / other).read_bytes())
    for way in _places(read(name)):
        for value in ODD:
            (tmp_path / name).write_text(json.dumps(_changed(read(name), way, value)), encoding="utf-8")
            outcome = read_outcome(tmp_path, None, ())
            assert outcome.state in ("completed", "damaged"), (way, value)
            if outcome.result is not None:
                assert 0 <= outcome.result["final_test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("status.json", {"state": "done"}), ("status.json", {"state": None}), ("status.json", {"pid": 0}),
        ("status.json", {"pid": -1}), ("status.json", {"pid": 2**40}), ("status.json", {"message": []}),
        ("result.json", {"final_test_accuracy": 1.5}), ("result.json", {"final_test_accuracy": True}),
        ("result.json", {"final_test_accuracy": "0.9"}), ("result.json", {"epochs": -1}), ("result.json", {"seed": 1.5}),
        ("result.json", {"weights_sha256": "x"}), ("result.json", {"target": {"met": []}}),
        ("provenance.json", {"resumed": 1}), ("provenance.json", {"resumed": [1]}), ("provenance.json", {"packages": []}),
        ("provenance.json", {"numerics": "1"}), ("provenance.json", {"code": None}), ("provenance.json", {"machine": 1}),
        ("provenance.json", {"id": "x' or 1"}), ("provenance.json", {"id": 1}),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_named(name: str, change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps({**read(name), **change}), encoding="utf-8")
    with pytest.raises(RunFolderError, match=rf"{name} must hold what the run wrote, got: {next(iter(change))}"):
        RunFolder(tmp_path).read_json(name)


METRICS = (EARLIER / "metrics.csv").read_text(encoding="utf-8")
HEAD, FIRST = METRICS.splitlines()[:2]


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}\n{FIRST},1\n", f"{HEAD}\n1,2\n", f"{HEAD}\n{FIRST.replace('1,', '2,', 1)}\n", "epoch\n1\n",
        f"{HEAD}\n{FIRST}\n{FIRST}\n", f'{HEAD}\n{FIRST}"\n"', f"{HEAD}\n1,x,1,0,1,0,1\n",
        f"{HEAD}\n1,nan,1,0,1,0,1\n", f"{HEAD}\n1,inf,1,0,1,0,1\n", f"{HEAD}\n1,1,1,1.5,1,0,1\n",
        f"{HEAD}\n1,1,1,-0.5,1,0,1\n", f"{HEAD}\n1,,1,0,1,0,1\n", f"{HEAD}\n1,\x00,1,0,1,0,1\n",
        f"{HEAD}\n1,{'9' * 200_000},1,0,1,0,1\n",
    ],
)  # fmt: skip
def test_metrics_that_no_run_writes_are_damaged(text: str) -> None:
    assert len(parse_metrics(METRICS)) == 6
    assert parse_metrics(f"{HEAD}\n1,1,1,0.5,,,1\n")[0]["test_accuracy"] == ""
    with pytest.raises(ValueError, match="."):
        parse_metrics(text)


STEPS = "epoch,step,images,loss,lr\n1,5,40,2.25,0.1\n1,7,10,2.0,0.1\n2,5,40,1.5,0.05\n"


@pytest.mark.parametrize(
    "text",
    [
        "epoch,step\n1,5\n", f"{STEPS}2,7,10,1.0\n", f"{STEPS}2,7,10,1.0,0.1,1\n", f"{STEPS}2,7,10,,0.1\n",
        f"{STEPS}2,7,10,nan,0.1\n", f"{STEPS}2,7,10,1.0,inf\n", f"{STEPS}2,5,10,1.0,0.1\n", f"{STEPS}1,9,10,1.0,0.1\n",
        f"{STEPS}x,7,10,1.0,0.1\n", f"{STEPS}0,7,10,1.0,0.1\n", f'{STEPS}2,7,10,1.0,"0.1\n',
        "epoch,step,images,loss,lr\n0,1,1,1,1\n", "epoch,step,images,loss,lr\n1,0,1,1,1\n",
        f"{STEPS}2,7,10,{'9' * 200_000},0.1\n",
    ],
)  # fmt: skip
def test_steps_that_no_run_writes_are_damaged(text: str) -> None:
    assert parse_steps("") == []
    assert [row["loss"] for row in parse_steps(STEPS)] == [2.25, 2.0, 1.5]
    with pytest.raises(ValueError, match="."):
        parse_steps(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_metrics, f"{HEAD}\n" + "1\n" * 10**6),
        (parse_steps, "epoch,step,images,loss,lr\n" + "1\n" * 10**6),
        (parse_fingerprints, "1\n" * 10**6),
    ],
)
def test_a_long_file_of_other_lines_takes_no_memory(parse: Callable[[str], object], text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="line "):
            parse(text)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(text)  # a string stream takes four bytes a character
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name", ["config.yaml", ".hydra/hydra.yaml", "status.json", "result.json", "metrics.csv", "steps.csv"]
)
def test_a_file_that_is_larger_than_any_run_writes_is_not_parsed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b" " * (2**24 + 1))
    with pytest.raises(
        RunFolderError, match=rf"{path.name} must hold what the run wrote, got: [\d,]+ bytes, more than"
    ):
        RunFolder(tmp_path).read(name, lambda text: pytest.fail("parsed"))


@pytest.mark.parametrize("line", ["[]", "{}", '{"epoch": 2, "order": "x"}', '{"epoch": 1}', '{"epoch": 1, "order": 1}'])
def test_fingerprints_that_no_run_writes_are_damaged(line: str) -> None:
    assert parse_fingerprints('{"epoch": 1, "order": "x"}\n') == {1: {"order": "x"}}
    with pytest.raises(ValueError, match="line 1"):
        parse_fingerprints(line)


ODD_RECORDS: tuple[Any, ...] = (1, "x", [1], {"a": 1}, None, [[1]], [None], [{}], True)


@pytest.mark.parametrize("odd", ODD_RECORDS, ids=str)
def test_a_record_of_a_sweep_that_no_driver_writes_is_damaged_or_says_nothing_else(odd: Any, tmp_path: Path) -> None:
    path = tmp_path / "multirun.yaml"
    whole = parse_yaml("multirun.yaml", (EARLIER.parent / "sweep" / "multirun.yaml").read_text(encoding="utf-8"))
    ways = [("sweep",), *(("hydra", key) for key in ("launcher", "sweeper", "job", "overrides", "runtime"))]
    ways += [("hydra", "job", "config_name"), ("hydra", "overrides", "task"), ("hydra", "overrides", "hydra")]
    for way in (*ways, ("hydra", "runtime", "config_sources")):
        path.write_text(as_yaml(_changed(whole, way, odd)), encoding="utf-8")
        is_a_section = way[-1] in ("sweep", "launcher", "sweeper") and odd == {"a": 1}  # its keys are checked later
        if is_a_section or (way[-1] == "config_name" and odd in ("x", None)):
            Request.of(SweepFolder(tmp_path))
            continue
        with pytest.raises(RunFolderError, match=rf"multirun.yaml must hold what the run wrote, got: {'.'.join(way)}"):
            Request.of(SweepFolder(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "hydra: {}", "hydra: {job: {num: x}, overrides: {task: []}}", "a: *b"])
def test_the_task_of_a_run_is_checked(text: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    path = tmp_path / ".hydra" / "hydra.yaml"
    path.write_text("hydra: {job: {num: '???'}, overrides: {task: [seed=1]}}", encoding="utf-8")
    assert RunFolder(tmp_path).read_task() == (None, ("seed=1",))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"hydra\.yaml must hold what the run wrote"):
        RunFolder(tmp_path).read_task()
