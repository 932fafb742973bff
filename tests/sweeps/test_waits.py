"""What a sweep waits for on this machine and elsewhere comes to an end."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from era_cnn.sweeps import plugin, pool
from tests.process import run_command
from tests.sweeps.conftest import SMALL, outcomes_of


@pytest.mark.slow
@pytest.mark.skipif(not pool._FORKS, reason="needs a fork server")
def test_a_sweep_runs_with_a_long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "t" / ("x" * 80)
    place.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(place))
    before = "import tempfile\ntempfile.tempdir = None"  # what the warm process has found out
    done = run_command("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=sweep", before=before)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [outcome.state for outcome in outcomes_of()] == ["completed"] * 2
    assert list(place.glob("pymp-*")) == []


def test_the_temporary_folder_is_replaced_only_if_it_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, is_kept in ((tempfile.mkdtemp(dir="/tmp"), True), (str(tmp_path / ("x" * 80)), False)):
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with pool._short_temporary_folder():
            assert (tempfile.gettempdir() == folder) == is_kept
        assert tempfile.gettempdir() == folder


class Stuck:
    """A process that only SIGKILL ends."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def join(self, timeout: float) -> None:
        self.calls.append("join")

    def is_alive(self) -> bool:
        return "kill" not in self.calls

    def kill(self) -> None:
        self.calls.append("kill")


def test_a_worker_that_does_not_end_is_killed() -> None:
    process: Any = Stuck()
    pool._join(process)
    assert process.calls == ["join", "kill", "join"]


def squeue(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str, str] | None) -> Any:
    """Lets squeue give these answers in turn, the last one again and again; None is a silence. Gives a job."""
    left = list(answers)

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        assert options["timeout"] == plugin.SLURM_SECONDS
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is None:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return SimpleNamespace(returncode=answer[0], stdout=answer[1], stderr=answer[2])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(plugin, "SQUEUE_SECONDS", 0.0)
    monkeypatch.setattr(plugin, "MAX_UNANSWERED", 5)
    return SimpleNamespace(job_id="7", paths=SimpleNamespace(result_pickle=Path("nowhere")))


QUEUED, GONE = (0, "7\n", ""), (0, "", "")
FORGOTTEN = (1, "", "slurm_load_jobs error: Invalid job id specified")
RESTARTING = (1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")


@pytest.mark.parametrize("end", [GONE, FORGOTTEN])
@pytest.mark.parametrize("silence", [None, RESTARTING])
def test_a_job_of_slurm_is_waited_for_until_it_is_gone(end, silence, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    silences = (silence, silence, silence, silence)
    job = squeue(monkeypatch, QUEUED, *silences, QUEUED, *silences, QUEUED, end)
    assert plugin._wait_for_slurm(job) == [None]
    assert capsys.readouterr().out == "Slurm does not answer. Asking up to 5 times for job 7.\n" * 2


@pytest.mark.parametrize("silence", [None, RESTARTING])
def test_a_slurm_that_never_answers_again_is_given_up(silence, monkeypatch: pytest.MonkeyPatch) -> None:
    job = squeue(monkeypatch, QUEUED, silence)
    with pytest.raises(TimeoutError, match="Slurm did not answer 5 times"):
        plugin._wait_for_slurm(job)
