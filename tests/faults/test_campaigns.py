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
from pathlib import Path
from typing import Any

import pytest

from tests.faults.variations import VARIATIONS

ROOT = Path(__file__).parents[2]


def campaign(call: str, out: Path) -> dict[str, Any]:
    program = (
        "import json, sys; from tests.faults import campaigns, harness; harness.preload(); "
        f"report = campaigns.{call}; "
        f"open({str(out)!r}, 'w').write(json.dumps([report.tried, report.failures, report.figures]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tried, failures, figures = json.loads(out.read_text(encoding="utf-8"))
    return {"tried": tried, "failures": failures, "figures": figures}


@pytest.mark.parametrize(
    ("call", "least"),
    [
        ("kills(12)", 12),
        ("crash_points(16)", 16),
        ("disk_failures(16)", 16),
        ("signals(8)", 8),
        ("damage(100, 25, 1)", 125),
    ],
)
def test_whatever_happens_a_run_comes_to_the_same_end(call: str, least: int, tmp_path: Path) -> None:
    found = campaign(call, tmp_path / "report.json")
    assert found["failures"] == []
    assert found["tried"] >= least


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("kills(10, sabotage='momentum')", "other fingerprints"),
        ("kills(10, sabotage='step_counter')", "other fingerprints"),
        ("kills(10, sabotage='best_accuracy')", "other result"),
        ("crash_points(10, only='power', sabotage='fsync')", "must hold a whole checkpoint"),
        ("damage(20, 5, 0, sabotage='digest_check')", "not detected"),
    ],
)
def test_a_campaign_notices_what_it_is_for(call: str, said: str, tmp_path: Path) -> None:
    assert any(said in failure for failure in campaign(call, tmp_path / "report.json")["failures"])


def test_there_are_enough_variations() -> None:
    assert len(VARIATIONS) >= 30


def test_what_must_not_matter_does_not(tmp_path: Path) -> None:
    program = (
        "from tests.faults.variations import variations; import json; "
        "report = variations(['as it is', 'a folder with other letters', 'LC_ALL=tr_TR', 'third of a sweep', "
        "'evaluated at the end only', 'a terminal with its bar', 'OMP_NUM_THREADS=7']); "
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
