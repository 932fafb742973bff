"""Weights & Biases: what its offline file holds, and that its process never outlives the run or changes this one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import era_cnn
from era_cnn.runs.loggers import wandb as module
from era_cnn.runs.loggers.sink import LoggedRun
from era_cnn.runs.loggers.wandb import WandB
from era_cnn.runs.loggers.wandb_process import _typed
from tests.helpers import needs
from tests.runs.listeners.test_logging import DIVERGING, SMALL, Failing, log_of

pytestmark = [pytest.mark.process, needs("wandb", "wandb")]

LOGGED = [*SMALL, "logger=wandb"]
ID = "0123456789abcdef" * 2
BLOCK_BYTES = 2**15
MOST_WAITS = 2000


@pytest.fixture(autouse=True)
def _settings_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor the home of whoever runs the tests says anything to wandb."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class Offline:
    """What an offline run holds.

    Its file is a log of protobuf records in LevelDB's format, after 7 bytes of its own: blocks of 32 KiB with pieces of
    records, each after a checksum (4 bytes), its length (2) and its kind (1 for a whole one, 4 for a last piece).
    """

    def __init__(self, folder: Path) -> None:
        (file,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
        self.files = file.parent / "files"
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        for record in records_of(file.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= values_of(record.run.config.update)
            elif kind == "history":
                self.rows.append(values_of(record.history.item))
            elif kind == "summary":
                self.summary |= values_of(record.summary.update)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    def points(self, name: str) -> list[tuple[int, float]]:
        """Step and value of each point of a chart."""
        return [(row["_step"], row[name]) for row in self.rows if name in row]


def records_of(data: bytes) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    assert data.startswith(b":W&B")
    position, content = 7, b""
    while position < len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        content += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(content)
            yield record
            content = b""


def values_of(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def sink_of(folder: Path, **settings: str) -> WandB:
    folder.mkdir(exist_ok=True)
    return WandB(LoggedRun(folder, ID, settings))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the processes that were started for wandb."""
    pids: list[int] = []
    start = WandB._start

    def record(sink: WandB) -> None:
        start(sink)
        pids.append(sink._process.pid)

    monkeypatch.setattr(WandB, "_start", record)
    return pids


def wait_until_gone(pid: int) -> None:
    """Waits until a process for wandb has ended, and so has the service that it started, which knows its id."""
    for _ in range(MOST_WAITS):
        commands = {path.parent.name: path for path in Path("/proc").glob("[0-9]*/cmdline")}
        if str(pid) not in commands and not any(f"--pid\0{pid}\0" in text_of(path) for path in commands.values()):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} or its service has not ended")


def text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has just ended
        return ""


@pytest.mark.slow
def test_the_offline_run_holds_each_point_once_also_after_a_resume() -> None:
    with pytest.raises(RuntimeError, match="the power is off"):
        era_cnn.train(LOGGED, folder="run", quiet=True, listeners=[Failing()])
    failed = Offline(Path("run"))
    assert (failed.exit_code, failed.summary["outcome"]) == (1, "the power is off")
    assert [step for step, _ in failed.points("lr")] == [1]
    run = era_cnn.resume("run", quiet=True)
    logged = Offline(run.path)
    for name, chart in (("lr", "lr"), ("train_loss", "loss/train"), ("test_accuracy", "accuracy/test")):
        assert logged.points(chart) == [(row["epoch"], pytest.approx(row[name])) for row in run.metrics]
    assert (logged.exit_code, logged.summary["outcome"]) == (0, "completed")
    assert logged.summary["final_test_accuracy"] == run.result["final_test_accuracy"]
    assert logged.run.run_id == failed.run.run_id
    assert logged.run.display_name == "run"
    assert logged.run.project == "era_cnn"
    assert {key: logged.config[key] for key in ("optimizer.lr", "model", "model.bias", "trainer.clip_grad_norm")} == {
        "optimizer.lr": 0.01, "model": "model_4", "model.bias": False, "trainer.clip_grad_norm": None
    }  # fmt: skip
    pictures = [path.name for path in sorted((logged.files / "media" / "images").iterdir())]
    assert [name.split("_4_")[0] for name in pictures] == ["confusion_matrix", "misclassified"]
    assert "logger=wandb must" not in log_of(run)


@pytest.mark.slow
def test_the_outcome_of_a_run_that_diverged_says_where() -> None:
    with pytest.raises(era_cnn.TrainingError, match="must stay finite"):
        era_cnn.train([*LOGGED, *DIVERGING], folder="run", quiet=True)
    assert re.match(r"The .* must stay finite, got nan .* epoch 1\b", Offline(Path("run")).summary["outcome"])


@pytest.mark.slow
def test_a_run_that_was_interrupted_counts_as_killed(tmp_path: Path) -> None:
    sink_of(tmp_path / "run").close()
    logged = Offline(tmp_path / "run")
    assert (logged.exit_code, logged.summary["outcome"]) == (255, "interrupted")


@pytest.mark.slow
def test_nothing_but_the_environment_makes_it_upload(
    tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "run"):
        (folder / "wandb").mkdir(parents=True)
        (folder / "wandb" / "settings").write_text("[default]\nmode = online\nentity = stranger\n")
    monkeypatch.setenv("WANDB_MODE", "shared")
    sink_of(tmp_path / "run").close()
    assert Offline(tmp_path / "run").run.entity == ""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="API key"):
        sink_of(tmp_path / "run")
    wait_until_gone(started[-1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_environment_names_the_project_but_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    for name in module.NOT_OURS:
        monkeypatch.setenv(name, "another")
    sink_of(tmp_path / "run").close()
    logged = Offline(tmp_path / "run")
    assert (logged.run.project, logged.run.run_id) == ("mine", ID)


@pytest.mark.slow
def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "offline-run-1").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").symlink_to(elsewhere)
    with pytest.raises(era_cnn.RunFolderError, match="wandb must be a folder, got a link"):
        sink_of(tmp_path / "run")
    assert (elsewhere / "offline-run-1").exists()


@pytest.mark.slow
def test_this_process_stays_as_it_was(tmp_path: Path, started: list[int]) -> None:
    before = sys.exit, sys.excepthook, dict(os.environ), signal.getsignal(signal.SIGINT)
    sink = sink_of(tmp_path / "run")
    sink.log(1, {"lr": 1.0})
    sink.close()
    assert (sys.exit, sys.excepthook, dict(os.environ), signal.getsignal(signal.SIGINT)) == before
    wait_until_gone(started[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "got"),
    [(signal.SIGSTOP, "no answer within 0.1 seconds"), (signal.SIGKILL, "its process ended")],
    ids=["hangs", "dies"],
)
def test_a_process_that_gives_no_answer_costs_the_run_nothing(
    harm: signal.Signals, got: str, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = WandB.log

    def harmed(sink: WandB, epoch: int, figures: Any) -> None:
        if epoch == 2:
            monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
            os.kill(started[0], harm)
        log(sink, epoch, figures)

    monkeypatch.setattr(WandB, "log", harmed)
    run = era_cnn.train(LOGGED, folder="run", quiet=True)
    assert run.state == "completed"
    assert log_of(run).count(f"logger=wandb must work, got RuntimeError: {got}. The run is unaffected") == 1
    wait_until_gone(started[0])


@pytest.mark.slow
def test_its_process_ends_with_that_of_the_run() -> None:
    """Even if that is killed. Nobody is left to wait for it."""
    code = (
        "import os; from pathlib import Path; from era_cnn.runs.loggers.wandb import WandB;"
        "from era_cnn.runs.loggers.sink import LoggedRun; Path('run').mkdir();"
        f"print(WandB(LoggedRun(Path('run'), '{ID}', {{}}))._process.pid, flush=True); os._exit(0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wait_until_gone(int(answer.stdout))
    assert Offline(Path("run")).summary["outcome"] == "its process ended"


@pytest.mark.parametrize("text", ["nan", "NaN", "Infinity", "[conv,norm]", "model_4", ""])
def test_what_is_no_value_of_json_stays_text(text: str) -> None:
    assert _typed(text) == text
