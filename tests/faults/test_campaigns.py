"""The campaigns in short, and that they would notice: what they are for is switched off, and they must fail.

Each has a process of its own that forks its runs, since threads do not survive a fork and the test runner has some.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.environments import ENVIRONMENTS, environments
from tests.faults.variations import VARIATIONS

pytestmark = pytest.mark.process  # for the server and its like
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    """A process that has imported all that a run needs, and computes nothing itself."""
    command = [sys.executable, "-m", "tests.faults.server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def campaign(server: subprocess.Popen[str], name: str, *trials: int, **options: Any) -> dict[str, Any]:
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps([name, trials, options]), file=server.stdin, flush=True)
    report: dict[str, Any] = json.loads(server.stdout.readline())
    return report


@pytest.mark.parametrize(
    ("name", "trials"),
    [
        ("kills", [12]),
        ("crash_points", [16]),
        ("disk_failures", [16]),
        ("signals", [6]),
        ("damage", [100, 25, 1]),
        ("sweep_kills", [4]),
        ("hostile_folders", [40]),
    ],
)
def test_whatever_happens_a_run_comes_to_the_same_end(
    name: str, trials: list[int], server: subprocess.Popen[str]
) -> None:
    found = campaign(server, name, *trials)
    assert found["failures"] == []
    assert found["tried"] >= trials[0]


@pytest.mark.parametrize(
    ("name", "trials", "options", "said"),
    [
        ("crash_points", [8], {"only": "killed", "sabotage": "momentum"}, "other fingerprints"),
        ("crash_points", [8], {"only": "killed", "sabotage": "step_counter"}, "other fingerprints"),
        ("crash_points", [12], {"only": "killed", "sabotage": "best_accuracy"}, "other result"),
        ("crash_points", [8], {"only": "power", "sabotage": "fsync"}, "must hold a whole checkpoint"),
        ("disk_failures", [16], {"sabotage": "swallowed_errors"}, "ended with 0"),
        ("damage", [20, 5, 0], {"sabotage": "digest_check"}, "not detected"),
        (
            "hostile_folders",
            [12],
            {"only": "a link to a file outside", "sabotage": "followed_links"},
            "outside was touched",
        ),
        (
            "sweep_kills",
            [1, ["basic"]],
            {"sabotage": "finished_jobs", "not_before": "*/result.json", "workers": 1},
            "was completed again",
        ),
    ],
)
def test_a_campaign_notices_what_it_is_for(
    name: str, trials: list[Any], options: dict[str, Any], said: str, server: subprocess.Popen[str]
) -> None:
    assert any(said in failure for failure in campaign(server, name, *trials, **options)["failures"])


@pytest.mark.parametrize("name", ["run below a link to nothing", "TMPDIR of 80 characters", "PYTHONIOENCODING=ascii"])
def test_odd_environments_are_carried_out_or_refused(name: str) -> None:
    report = environments(1, only=name)
    assert (report.tried, report.failures) == (1, [])


@pytest.mark.parametrize(
    ("trial", "sabotage"),
    [
        ("describe in PYTHONIOENCODING=ascii:strict", "missing_characters"),
        ("run in no standard output", "closed_streams"),
    ],
)
def test_environments_notice_what_they_are_for(trial: str, sabotage: str) -> None:
    (failure, *_) = environments(1, only=trial, sabotage=sabotage).failures
    assert f"{trial}: a traceback: " in failure


def test_there_are_enough_environments() -> None:
    assert len(ENVIRONMENTS) >= 250


def test_there_are_enough_variations() -> None:
    assert len(VARIATIONS) >= 30


def test_what_must_not_matter_does_not(tmp_path: Path) -> None:
    program = (
        "from tests.faults.variations import variations; import json; "
        "report = variations(['a folder with other letters', 'LC_ALL=tr_TR', 'third of a sweep', "
        "'a terminal with its bar']); "
        "print(json.dumps([report.failures, report.figures]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    failures, figures = json.loads(done.stdout)
    assert failures == []
    assert figures["digests"] == 1


def test_a_second_sigint_stops_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "era_cnn", "experiment=model_4_digits", "hydra.run.dir=run"]
    slow = "import os, time; _fsync = os.fsync\nos.fsync = lambda number: (time.sleep(0.5), _fsync(number))[1]\n"
    (tmp_path / "sitecustomize.py").write_text(slow, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("EPOCH:1"):
                break
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)  # into the saving, which is slow here
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "Stopped."
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "interrupted"
    assert not (tmp_path / "run" / "result.json").exists()
