"""Whole sweeps, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import era_cnn
from era_cnn.compose.launchers import BasicLauncher, LocalLauncher
from era_cnn.errors import ConfigError
from era_cnn.folders.sweep import SweepFolder
from era_cnn.sweeps.options import sweep_options
from era_cnn.sweeps.request import Request
from tests.process import Command, run_command
from tests.sweeps.conftest import SMALL, outcomes_of, weights_of

LAUNCHERS = ["basic", "local"]
WAYS = {
    "raise": "RuntimeError: on purpose",
    "sys.exit": "SystemExit: 3",
    "os._exit": "its process exited with code 7",
    "SIGKILL": "its process was killed by SIGKILL, as when memory runs out",
    "SIGSEGV": "its process was killed by SIGSEGV",
    "SIGABRT": "its process was killed by SIGABRT",
    "memory": "can't allocate memory",
    "diverge": "must stay finite, got nan",
}
"""How a job may fail, and what is said of it then."""


def states(path: str = "sweep") -> list[str]:
    return [outcome.state for outcome in outcomes_of(path)]


def status(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return found


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[Any] | Command) -> None:
    while not happened():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "ways"), [("basic", ["SIGKILL", "raise", "sys.exit"]), ("local", list(WAYS))])
def test_failures_stay_where_they_happen(launcher: str, ways: list[str], sweep) -> None:
    seeds = ",".join(map(str, range(len(ways) + 1)))
    words = ["-m", *SMALL, f"hydra/launcher={launcher}", f"seed={seeds}", "hydra.sweep.dir=sweep"]
    done = sweep(*words, sabotage=dict(enumerate(ways)))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    outcomes = outcomes_of()
    assert [outcome.state for outcome in outcomes] == [*["failed"] * len(ways), "completed"]
    for way, outcome in zip(ways, outcomes, strict=False):
        assert WAYS[way] in outcome.message
        log = (outcome.folder / "run.log").read_text(encoding="utf-8")
        if way in ("raise", "sys.exit", "memory"):
            assert "in sabotaged" in str(status(outcome.folder)["traceback"])
            assert "Traceback (most recent call last)" in log
        if way == "SIGSEGV":
            assert "Fatal Python error: Segmentation fault" in log
    assert f"1 of {len(ways) + 1} jobs done, {len(ways)} failed or interrupted" in done.stdout
    assert "To resume what is not done: era-cnn resume sweep\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "Sweep folder: sweep"


@pytest.mark.slow
def test_each_launcher_comes_to_the_same_bits(sweep, expected, command) -> None:
    assert sweep("-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=local", "hydra/launcher=local").returncode == 0
    assert weights_of(outcomes_of("local")) == expected[:3]
    assert len(set(expected)) == 4
    code, _, _ = command(*SMALL, "seed=2", "hydra.run.dir=alone")
    assert code == 0
    alone = json.loads(Path("alone/result.json").read_text(encoding="utf-8"))
    assert alone["weights_sha256"] == expected[2]
    assert alone["config_sha256"] == outcomes_of("local")[2].result["config_sha256"]


@pytest.mark.slow
def test_a_failed_job_is_tried_again_from_its_checkpoint(sweep, expected, tmp_path: Path) -> None:
    words = ["-m", *SMALL, "seed=1,2,3", "hydra.sweep.dir=sweep", "hydra/launcher=local"]
    done = sweep(*words, "sweep.retries=1", sabotage={1: "once raise", 2: "once SIGKILL", 3: "raise"})
    assert done.returncode == 1
    assert states() == ["completed", "completed", "failed"]
    assert done.stdout.count("trying again") == 3
    assert "Resuming in epoch 2" in (tmp_path / "sweep" / "0_model_4_digits" / "run.log").read_text(encoding="utf-8")
    assert weights_of(outcomes_of())[:2] == expected[1:3]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_may_stop_at_the_first_failure(launcher: str, fake_sweep) -> None:
    words = ["-m", *SMALL, "seed=0,1,2,3", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"]
    one = ["hydra.launcher.n_jobs=1"] if launcher == "local" else []
    done = fake_sweep(*words, *one, "sweep.on_error=stop", sabotage={1: "raise"})
    assert done.returncode == 1
    assert states() == ["completed", "failed", *["planned"] * 2]
    done = fake_sweep("resume", "sweep")
    assert done.returncode == 0
    assert states() == ["completed"] * 4


def test_a_failed_job_runs_again_on_resume_and_a_completed_one_does_not(fake_sweep, tmp_path: Path) -> None:
    fake_sweep("-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=sweep", sabotage={1: "raise"})
    before = {
        outcome.number: (outcome.folder / "result.json").read_bytes() for outcome in outcomes_of() if outcome.result
    }
    done = fake_sweep("resume", "sweep", "hydra/launcher=local")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if "started" in line] == ["job 1 (seed=1) started"]
    assert states() == ["completed"] * 3
    for number, content in before.items():
        assert (outcomes_of()[number].folder / "result.json").read_bytes() == content
    done = fake_sweep("resume", "sweep")
    assert done.returncode == 0
    assert " started" not in done.stdout


@pytest.mark.slow
def test_jobs_at_once_see_a_gpu_each(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert sweep("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep", "hydra/launcher=local").returncode == 0
    outcomes = [
        json.loads((outcome.folder / "provenance.json").read_text(encoding="utf-8")) for outcome in outcomes_of()
    ]
    assert {outcome["environment"]["CUDA_VISIBLE_DEVICES"] for outcome in outcomes} == {"4", "7"}
    assert sweep(
        "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=again", "sweep.reuse=true", "sweep.reuse_from=[sweep]"
    ).stdout
    assert states("again") == ["reused"] * 2  # which of them it was changes nothing


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are not forked")
def test_workers_can_be_forked_though_the_folder_where_that_was_prepared_is_gone(tmp_path: Path) -> None:
    code = f"""
import os
from era_cnn.cli import main
from era_cnn.sweeps import pool
os.mkdir("gone")
os.chdir("gone")
pool.prepare()
os.chdir("..")
os.rmdir("gone")
raise SystemExit(main(["-m", *{SMALL}, "seed=0,1", "hydra.sweep.dir=sweep", "hydra/launcher=local"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert states() == ["completed"] * 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are not forked")
def test_jobs_outlive_the_process_that_they_were_forked_from(sabotaged, tmp_path: Path) -> None:
    sabotaged({0: "wait"})
    words = ["-m", *SMALL, "seed=0,1,2", "hydra/launcher=local", "hydra.launcher.n_jobs=1"]
    process = Command(*words, "hydra.sweep.dir=sweep")
    wait_until(lambda: any(tmp_path.glob("sweep/*/checkpoints/*.pt")), process)
    (server,) = (pid for pid, line in children_of(process.pid).items() if "tests.process" in line)
    os.kill(server, signal.SIGKILL)
    (tmp_path / "go").touch()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert states() == ["completed"] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number", "code"),
    [
        ("local", signal.SIGHUP, 129),
        pytest.param("basic", signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param("basic", signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_that_is_stopped_goes_on(
    launcher: str, number: int, code: int, sweep, sabotaged, expected, tmp_path: Path
) -> None:
    sabotaged({0: "wait"})
    words = ["-m", *SMALL, "seed=0,1,2", f"hydra/launcher={launcher}"]
    process = Command(*words, "hydra.sweep.dir=sweep")
    wait_until(lambda: any(tmp_path.glob("sweep/*/checkpoints/*.pt")), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == ""
    if code > 0:
        assert "To resume what is not done: era-cnn resume sweep" in out
        assert "interrupted" in states()
    done = sweep("resume", "sweep")
    assert done.returncode == 0, done.stderr
    assert states() == ["completed"] * 3
    assert weights_of(outcomes_of()) == expected[:3]


@pytest.mark.slow
def test_two_drivers_never_share_a_sweep(sweep, tmp_path: Path) -> None:
    process = Command("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    wait_until((tmp_path / "sweep" / "ledger.jsonl").exists, process)
    done = sweep("resume", "sweep")
    process.communicate()
    assert process.returncode == 0
    assert done.returncode == 4
    assert done.stderr == f"{tmp_path / 'sweep'} must be free, got one in use by another process. Wait for it.\n"


def test_a_lost_ledger_is_made_again_from_the_folders(fake_sweep, tmp_path: Path) -> None:
    fake_sweep("-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=sweep", sabotage={1: "raise"})
    ledger = tmp_path / "sweep" / "ledger.jsonl"
    before = ledger.read_text(encoding="utf-8").splitlines()
    ledger.unlink()
    done = fake_sweep("resume", "sweep")
    assert done.returncode == 0
    after = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    assert [line["state"] for line in after] == ["completed", "failed", "completed", "running", "completed"]
    for line in before[:3]:
        planned = json.loads(line)
        again = after[planned["number"]]
        assert {key: planned[key] for key in planned if key not in ("state", "time")} == {
            key: again[key] for key in again if key not in ("state", "time", "message")
        }


def test_the_table_is_the_same_without_the_ledger(fake_sweep, tmp_path: Path) -> None:
    assert fake_sweep("-m", *SMALL, "seed=1,2", "optimizer=sgd,adam", "hydra.sweep.dir=sweep").returncode == 0
    table = (tmp_path / "sweep" / "sweep.csv").read_text(encoding="utf-8")
    (tmp_path / "sweep" / "ledger.jsonl").unlink()
    assert fake_sweep("compare", "sweep").returncode == 0
    assert (tmp_path / "sweep" / "sweep.csv").read_text(encoding="utf-8") == table


def test_a_ledger_that_is_cut_short_loses_no_job(fake_sweep, tmp_path: Path) -> None:
    fake_sweep("-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=sweep", sabotage={2: "raise"})
    ledger = tmp_path / "sweep" / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text(encoding="utf-8").splitlines(keepends=True)[:1]), encoding="utf-8")
    assert fake_sweep("resume", "sweep").returncode == 0
    assert states() == ["completed"] * 3


@pytest.mark.slow
def test_a_folder_that_is_gone_is_made_again(fake_sweep, tmp_path: Path) -> None:
    words = ["--config-dir", "own", "-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=sweep", "optimizer=mine"]
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    group = tmp_path / "own" / "optimizer" / "mine.yaml"
    group.write_text("defaults: [sgd]\nlr: 0.01\n", encoding="utf-8")
    assert fake_sweep(*words).returncode == 0
    before = weights_of(outcomes_of())
    shutil.rmtree(tmp_path / "sweep" / "1_model_4_digits")
    group.write_text("defaults: [sgd]\nlr: 0.02\n", encoding="utf-8")
    done = fake_sweep("resume", "sweep")  # the record may come from someone else, and name any folder
    assert done.returncode == 2
    assert done.stderr.startswith("--config-dir must be given again, since jobs are composed from '")
    assert done.stderr.endswith("got nothing. Check that folder, and add --config-dir.\n")
    done = fake_sweep("resume", "sweep", "--config-dir", "own")
    assert done.returncode == 4
    assert "must exist, got nothing, and the config files now describe another job. Undo their change." in done.stderr
    group.write_text("defaults: [sgd]\nlr: 0.01\n", encoding="utf-8")
    assert fake_sweep("resume", "sweep", "--config-dir", "own").returncode == 0
    assert weights_of(outcomes_of()) == before


def test_what_a_preset_or_an_experiment_says_of_a_sweep_holds_when_it_goes_on(fake_sweep, tmp_path: Path) -> None:
    (tmp_path / "own" / "sweep").mkdir(parents=True)
    preset = "# @package _global_\ndefaults: [default@sweep, override /hydra/launcher: local]\nsweep: {name: mine, retries: 3}\n"
    (tmp_path / "own" / "sweep" / "mine.yaml").write_text(preset, encoding="utf-8")
    fake_sweep("-m", *SMALL, "seed=0", "hydra.sweep.dir=sweep", "sweep=mine", "--config-dir", "own")
    shutil.rmtree("own")
    recorded = Request.of(SweepFolder(tmp_path / "sweep"))
    options = sweep_options(recorded.composed([]))
    assert (options.sweep.retries, options.launcher) == (3, LocalLauncher(name="local", n_jobs=None))
    options = sweep_options(recorded.composed(["hydra/launcher=basic", "sweep.retries=1"]))
    assert (options.sweep.retries, options.launcher) == (1, BasicLauncher())
    assert sweep_options(recorded.composed(["hydra.launcher.n_jobs=1"])).launcher == LocalLauncher(
        name="local", n_jobs=1
    )
    assert fake_sweep("resume", "sweep").returncode == 0


@pytest.mark.slow
def test_a_full_disk_ends_a_sweep_with_one_line(sweep) -> None:
    """Each job's status can't be written from some point on: nobody tries it again without end."""
    full = (
        "import os, errno\n_replace = os.replace\n"
        "def replace(old, new):\n"
        "    if str(new).endswith('status.json'):\n        raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "    _replace(old, new)\n"
        "os.replace = replace\n"
    )
    done = run_command("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep", before=full)
    assert done.returncode == 1
    assert "trying again" not in done.stdout
    assert "it recorded no reason, as when the disk is full" in done.stdout
    assert sweep("resume", "sweep").returncode == 0


@pytest.mark.slow
def test_damage_to_one_job_is_its_own(sweep, tmp_path: Path) -> None:
    sweep("-m", *SMALL, "seed=0,1,2,3", "hydra.sweep.dir=sweep", sabotage={2: "raise", 3: "raise"})
    folder = tmp_path / "sweep"
    (folder / "0_model_4_digits" / "result.json").write_text('{"weights_sha256": "x"}', encoding="utf-8")
    (folder / "3_model_4_digits" / "status.json").write_text("{", encoding="utf-8")
    shutil.rmtree(folder / "1_model_4_digits")
    (folder / "1_model_4_digits").write_text("no folder", encoding="utf-8")
    done = sweep("resume", "sweep")
    assert done.returncode in (1, 4)
    assert "Traceback" not in done.stderr
    (folder / "1_model_4_digits").unlink()
    (folder / "2_model_4_digits" / "run.log").unlink()
    (folder / "2_model_4_digits" / "run.log").mkdir()
    assert sweep("resume", "sweep").returncode == 1
    assert "run.log must be a plain file, got a folder." in outcomes_of()[2].message
    (folder / "2_model_4_digits" / "run.log").rmdir()
    done = sweep("resume", "sweep")
    assert done.returncode == 1
    assert states() == ["damaged", "completed", "completed", "completed"]
    assert sweep("compare", "sweep").returncode == 0


@pytest.mark.slow
def test_sources_that_are_damaged_are_not_taken_over(sweep, command, tmp_path: Path) -> None:
    for number, harm in enumerate(("metrics.csv", "checkpoint", "result")):
        command(*SMALL, "seed=1", f"hydra.run.dir=outputs/{harm}")
        source = tmp_path / "outputs" / harm
        if harm == "metrics.csv":
            (source / harm).unlink()
        elif harm == "checkpoint":
            for path in (source / "checkpoints").iterdir():
                path.write_bytes(path.read_bytes()[:100])
        else:
            (source / "result.json").write_text("{}", encoding="utf-8")
        sweep("-m", *SMALL, "seed=1", "sweep.reuse=true", f"hydra.sweep.dir=sweeps/{number}")
        assert states(str(tmp_path / "sweeps" / str(number))) == ["completed"]


@pytest.mark.process
def test_without_standard_streams_jobs_print_into_their_own_logs_and_import_nothing_from_where_one_stands(
    sabotaged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("grp", "pickle", "signal", "socket"):  # what the processes of a sweep import themselves
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').close()", encoding="utf-8")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    sabotaged({0: "print a", 1: "print b"})
    program = Path(sys.executable).with_name("era-cnn")
    line = f"{program} -m {' '.join(SMALL)} seed=0,1 report=false hydra.sweep.dir=sweep <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()
    for outcome, own, other in zip(outcomes_of(), ("print a", "print b"), ("print b", "print a"), strict=True):
        log = (outcome.folder / "run.log").read_text(encoding="utf-8")
        assert own in log
        assert other not in log


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is imported beforehand")
def test_ctrl_c_while_all_is_imported_says_one_word(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "era_cnn", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep"]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: any("forkserver" in line for line in children_of(process.pid).values()), process)
    time.sleep(0.5)  # into the imports, which take seconds
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Stopped.\n")


def children_of(pid: int) -> dict[int, str]:
    """The command lines of its child processes, by number."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return {int(pid): Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in children}


@pytest.mark.slow
def test_equal_runs_are_taken_from_where_they_lie(sweep, command, tmp_path: Path) -> None:
    command(*SMALL, "seed=1", "hydra.run.dir=outputs/a")
    words = ["-m", *SMALL, "seed=1,2", "sweep.reuse=true"]
    done = sweep(*words, "hydra.sweep.dir=multirun/a")
    assert done.returncode == 0
    assert states("multirun/a") == ["reused", "completed"]
    reused, source = outcomes_of("multirun/a")[0], Path("outputs/a")
    assert status(reused.folder)["reused_from"] == str(tmp_path / source)
    for name in ("metrics.csv", "provenance.json", "summary.txt"):
        assert (reused.folder / name).stat().st_ino == (source / name).stat().st_ino
    assert reused.result == json.loads((source / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(source)
    assert states(str(tmp_path / "multirun/a")) == ["reused", "completed"]
    done = sweep(*words, "hydra.sweep.dir=multirun/b", "hydra/launcher=local")
    assert states("multirun/b") == ["reused", "reused"]
    # Whatever can change the result makes another run of it, and nothing else does.
    other = sweep(*words, "optimizer.momentum=0.8", "hydra.sweep.dir=multirun/c")
    assert states("multirun/c") == ["completed", "completed"], other.stdout
    sweep(*words, "trainer.checkpoint_every_seconds=1", "name=x", "hydra.sweep.dir=multirun/d")
    assert states("multirun/d") == ["reused", "reused"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_is_taken_from_an_equal_one_of_its_own_sweep(launcher: str, sweep) -> None:
    words = ("seed=1", "name=a,b", "sweep.reuse=true", "hydra.launcher.n_jobs=1")
    words = words if launcher == "local" else words[:-1]
    assert sweep("-m", *SMALL, *words, f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep").returncode == 0
    assert states() == ["completed", "reused"]
    assert status(Path("sweep/1_b"))["reused_from"] == str(Path.cwd() / "sweep" / "0_a")


@pytest.mark.slow
def test_a_recorded_folder_is_searched_for_equal_runs_only_if_it_is_given_again(sweep, command, tmp_path: Path) -> None:
    command(*SMALL, "seed=1", "hydra.run.dir=elsewhere/a")
    words = ["-m", *SMALL, "seed=1,2", "sweep.reuse=true", "sweep.reuse_from=[elsewhere]", "hydra.sweep.dir=sweep"]
    assert sweep(*words, sabotage={2: "raise"}).returncode == 1
    assert states() == ["reused", "failed"]

    def begin_again(*more: str) -> str:
        shutil.rmtree("sweep/0_model_4_digits")
        done = sweep("resume", "sweep", *more)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    assert (
        "Equal runs are not searched for in ['elsewhere']. To do so, add sweep.reuse_from=… again.\n" in begin_again()
    )
    assert states() == ["completed", "completed"]
    assert "Equal runs" not in begin_again("sweep.reuse_from=[elsewhere]")
    assert states() == ["reused", "completed"]
    assert "Equal runs" not in begin_again("sweep.reuse=false")
    assert states() == ["completed", "completed"]
    code, _, err = command("resume", "sweep", "sweep.reuse=false", "sweep.reuse_from=[a]")
    assert (code, err[:54]) == (2, "sweep.reuse_from must be used with sweep.reuse=true, g")


def test_the_results_are_written_and_can_be_asked_for(fake_sweep, command, tmp_path: Path) -> None:
    fake_sweep("-m", *SMALL, "seed=0,1", "model.dropout=0,0.2", "hydra.sweep.dir=sweep", sabotage={1: "raise"})
    page = (tmp_path / "sweep" / "sweep.md").read_text(encoding="utf-8")
    table = (tmp_path / "sweep" / "sweep.csv").read_text(encoding="utf-8")
    assert page.count("| completed |") == 2
    assert len(table.splitlines()) == 5
    for name in ("sweep.md", "sweep.csv"):
        (tmp_path / "sweep" / name).unlink()
    code, out, _ = command("compare", "sweep")
    assert code == 0
    assert (tmp_path / "sweep" / "sweep.md").read_text(encoding="utf-8") == page
    assert (tmp_path / "sweep" / "sweep.csv").read_text(encoding="utf-8") == table
    assert re.search(r"^0 +0 +0 +completed", out, re.MULTILINE)
    code, out, _ = command("compare", "sweep", "sweep/0_model_4_digits")
    assert code == 0
    assert command("compare", "nowhere")[0] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sede=1,2"], "sede must be a key of the config, got 1. Did you mean seed?"),
        (["seed=range(5,5)"], "A sweep must have at least one job, got none."),
        (["seed=1,2", "seed=3"], "seed must be given once, got seed=1,2 and seed=3. Remove all but one."),
        (
            ["optimizer.lr=0.1,-1"],
            "In job 1 (data=digits, optimizer.lr=-1): optimizer.lr must be greater than 0, got -1.",
        ),
        (["sweep.retries=1,2"], "sweep.retries must have one value for all jobs, got 1,2. Start a sweep for each."),
        (["hydra/launcher=basic,local"], "hydra/launcher must have one value for all jobs, got basic,local."),
        (["sweep.retries=-1"], "sweep.retries must be at least 0, got -1."),
        (["sweep.on_error=ignore"], "sweep.on_error must be one of continue, stop, got 'ignore'."),
        (["hydra/launcher=local", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs must be at least 1, got 0."),
        (
            ["seed=1,1"],
            "A sweep must have jobs that differ, got job 0 (data=digits, seed=1) and job 1 (data=digits, seed=1), whose",
        ),
        (
            ["model.dropout=0.1,1e-1"],
            "A sweep must have jobs that differ, got job 0 (data=digits, model.dropout=0.1) and job 1 (data=digits, model",
        ),
        (["seed=1,2", "~sweep"], "sweep.name must be given, got nothing."),
        (
            ["seed=1,2", "hydra.sweep.subdir='study.db/${seed}'"],
            "hydra.sweep.subdir must not be the name of a file of the sweep",
        ),
        (["hydra.sweeper.max_batch_size=2"], "hydra.sweeper.max_batch_size must be null: a job starts as soon as"),
        (
            ["seed=1,2", "threads=1,0"],
            "In job 1 (data=digits, seed=1, threads=0) and 1 more: threads must be at least 1, got 0.",
        ),
    ],
)
def test_bad_sweeps_are_refused_before_anything_is_made(words: list[str], said: str, command, tmp_path: Path) -> None:
    code, out, err = command("-m", "data=digits", *words)
    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [[], ["describe"], ["data", "digits"]])
@pytest.mark.parametrize("word", ["sweep.retries=2", "hydra/launcher=local", "+hydra.launcher.setup=[a]"])
def test_options_of_sweeps_have_no_effect_on_a_run_and_are_refused(
    verb: list[str], word: str, command, tmp_path: Path
) -> None:
    key = word.lstrip("+").partition("=")[0]
    message = f"{key} must be used with a sweep, got a single run. Add -m, or remove it."
    assert command(*verb, word) == (2, "", f"{message}\n")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=re.escape(message)):
        era_cnn.compose([word])


def test_what_a_sweep_is_cannot_change_when_it_goes_on(fake_sweep, command) -> None:
    fake_sweep("-m", *SMALL, "seed=1", "hydra.sweep.dir=sweep")
    code, _, err = command("resume", "sweep", "seed=2")
    assert code == 2
    assert err.startswith("seed must not change: the jobs are planned already, got '2'.")
    for word, said in {
        "+hydra/launcher=local": "hydra/launcher must be given as hydra/launcher=…, got +hydra/launcher=local.",
        "hydra/launcherx=1": "hydra/launcherx must not change: the jobs are planned already, got '1'.",
        "sweep.retries=1,2": "sweep.retries must have one value for all jobs, got 1,2.",
        "~sweep.retries": "sweep.retries must be given as sweep.retries=…, got ~sweep.retries.",
        "hydra.sweeper.n_trials=60": "hydra.sweeper.n_trials must be used with a search, got another sweep.",
        "retries": "retries must be key=value, got: ",
    }.items():
        code, _, err = command("resume", "sweep", word)
        assert (code, err[: len(said)]) == (2, said)
    code, _, err = command("resume", "sweep", "hydra/launcher=nope")
    assert code == 2
    assert err.startswith("hydra/launcher must be one of ")
    code, _, err = command("resume", "sweep", "hydra.launcher.x=1")
    assert (code, err[:39]) == (2, "hydra.launcher.x must not be given: hyd")
    Path("sweep/multirun.yaml").write_text("", encoding="utf-8")
    for verb in ("resume", "compare"):
        code, _, err = command(verb, "sweep")
        assert code == 4
        assert "multirun.yaml must hold what the run wrote" in err


@pytest.mark.slow
def test_the_same_sweep_in_the_same_second_has_a_folder_of_its_own(tmp_path: Path) -> None:
    processes = [Command("-m", *SMALL, "seed=1", "hydra.sweep.dir=sweep") for _ in range(2)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "sweep_2"]
    assert weights_of(outcomes_of("sweep")) == weights_of(outcomes_of("sweep_2"))
