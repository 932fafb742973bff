"""How a sweep is driven, with jobs that train nothing: failures, retries, stops, pruning, and what is shown of it."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from era_cnn.compose.composition import as_yaml, compose_typed
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words, parse_words
from era_cnn.errors import OutputError, StorageError
from era_cnn.folders.ledger import Entry, Job, Ledger
from era_cnn.folders.outcome import Outcome
from era_cnn.folders.sweep import SweepFolder
from era_cnn.runs.stopping import StopRequest
from era_cnn.signals import SIGNALS
from era_cnn.sweeps.board import Board
from era_cnn.sweeps.options import SweepConfig, sweep_options
from era_cnn.sweeps.sweep import MAX_SILENCE_SECONDS, MAX_STOPS, Drive, Listed
from tests.sweeps.conftest import SMALL, outcomes_of
from tests.sweeps.fakes import KILLED, FakeExecutor, Script, ledger_of

SWEEP = ["-m", *SMALL, "hydra.sweep.dir=sweep"]
FOUR_EPOCHS = [*(word for word in SWEEP if "limit_epochs" not in word), "trainer.limit_epochs=4"]
LAUNCHERS = {"basic": [], "local": ["hydra/launcher=local", "hydra.launcher.n_jobs=3"]}
SILENT = "it recorded no reason, as when the disk is full"
FAILURES = {
    "raise": ("failed", "RuntimeError: on purpose"),
    "SIGKILL": ("failed", f"The job ended without a result: {KILLED}."),
    "silent": ("failed", f"The job ended without a result: {SILENT}."),
    "damage": ("damaged", "result.json must hold what the run wrote, got: Expecting"),
}
"""What is recorded of a job that fails in a way: its state, and what its message holds."""


def states() -> list[str]:
    return [outcome.state for outcome in outcomes_of()]


def ledger() -> list[tuple[int, str]]:
    return ledger_of(Path("sweep/ledger.jsonl"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("way", FAILURES)
def test_a_failure_is_recorded_and_the_others_go_on(way: str, launcher: str, fake_sweep) -> None:
    done = fake_sweep(*SWEEP, *LAUNCHERS[launcher], "seed=0,1,2", sabotage={1: way})
    state, message = FAILURES[way]
    assert done.returncode == 1
    assert states() == ["completed", state, "completed"]
    assert message in outcomes_of()[1].message
    assert Counter(ledger()) == Counter(
        [(number, each) for number in range(3) for each in ("planned", "running")]
        + [(0, "completed"), (1, state), (2, "completed")]
    )
    assert "To resume what is not done: era-cnn resume sweep\n" in done.stdout
    assert re.search(rf"^1 +1 +{state}", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("way", FAILURES)
def test_a_job_is_tried_as_often_as_was_asked(way: str, retries: int, fake_sweep, script: Script) -> None:
    done = fake_sweep(*SWEEP, "seed=0,1", f"sweep.retries={retries}", sabotage={0: way})
    assert done.returncode == 1
    assert states() == [FAILURES[way][0], "completed"]
    assert [number for number, _ in script.started].count(0) == 1 + retries
    assert done.stdout.count("; trying again") == retries


@pytest.mark.parametrize("way", [way for way in FAILURES if way != "damage"])
def test_a_job_that_fails_once_goes_on_where_it_was(way: str, fake_sweep, script: Script) -> None:
    done = fake_sweep(*SWEEP, "seed=0,1", "sweep.retries=1", sabotage={0: f"once {way}"})
    assert done.returncode == 0
    assert script.started == [(0, 1), (1, 1), (0, 2)]  # behind the others, from its second epoch on
    assert states() == ["completed"] * 2
    assert "2 of 2 jobs done" in done.stdout


@pytest.mark.parametrize("retries", [0, 2])
def test_a_job_that_is_stopped_alone_waits_and_no_attempt_is_counted(retries: int, fake_sweep, script: Script) -> None:
    done = fake_sweep(*FOUR_EPOCHS, "seed=0,1", f"sweep.retries={retries}", sabotage={0: "SIGTERM"})
    assert done.returncode == 0
    assert states() == ["completed"] * 2
    assert [epoch for number, epoch in script.started if number == 0] == [1, 2, 3, 4]


def test_a_job_that_is_stopped_forever_is_given_up(fake_sweep, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.sweeps.fakes._epochs_done", lambda folder: 0)  # so each attempt is at its first epoch
    done = fake_sweep(*FOUR_EPOCHS, "seed=0", sabotage={0: "SIGTERM"})
    assert done.returncode == 1
    assert len(script.started) == MAX_STOPS
    assert states() == ["interrupted"]


def test_a_job_in_use_elsewhere_is_waited_for_and_reported_once(fake_sweep, script: Script) -> None:
    with ExitStack() as held:
        script.at_look = {
            1: lambda: held.enter_context(SweepFolder(Path("sweep")).run(job_1()).locked()),
            5: held.close,
        }
        done = fake_sweep(*SWEEP, "seed=0,1")
    assert done.returncode == 0
    said = "job 1 (seed=1) is in use by another process; waiting for it (until it has written nothing for 2:00:00)\n"
    assert done.stdout.count(said) == 1
    assert script.looks > 5


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("is_silent", [True, False])
def test_a_job_that_another_process_never_gives_back_is_given_up(
    is_silent: bool, retries: int, fake_sweep, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=MAX_SILENCE_SECONDS)
    monkeypatch.setattr("era_cnn.sweeps.sweep.time.monotonic", lambda: float(next(clock)))

    def write() -> None:
        job = SweepFolder(Path("sweep")).run(job_1())
        job.checkpoints.path.mkdir(exist_ok=True)
        (job.checkpoints.path / f"{script.looks}").touch()

    with ExitStack() as held:
        script.at_look = {1: lambda: held.enter_context(SweepFolder(Path("sweep")).run(job_1()).locked())}
        if not is_silent:
            script.at_look |= {**dict.fromkeys(range(2, 8), write), 8: held.close}
        done = fake_sweep(*SWEEP, "seed=0,1,2", f"sweep.retries={retries}")
        assert states()[::2] == ["completed"] * 2
        assert ((1, "failed") in ledger()) == is_silent
        assert done.returncode == (1 if is_silent else 0)
    if is_silent:
        said = "Another process uses its folder, and writes nothing. End it, and resume the sweep.\n"
        assert f"job 1 (seed=1) failed: {said}" in done.stdout
        assert fake_sweep("resume", "sweep").returncode == 0
    assert states() == ["completed"] * 3


def job_1() -> Job:
    return SweepFolder(Path("sweep")).jobs()[1]


@pytest.mark.parametrize(
    ("ways", "attempts"), [("SIGTERM,raise", 3), ("raise,SIGTERM", 3), ("SIGTERM,SIGTERM,raise", 4), ("raise,raise", 2)]
)
def test_a_stop_in_between_leaves_a_job_its_attempts(ways: str, attempts: int, fake_sweep, script: Script) -> None:
    done = fake_sweep(*FOUR_EPOCHS, "seed=0", "sweep.retries=1", sabotage={0: ways})
    assert done.returncode == (1 if ways == "raise,raise" else 0)
    assert len(script.started) == attempts


@pytest.mark.parametrize("way", FAILURES)
@pytest.mark.parametrize(("launcher", "ended"), [("basic", 2), ("local", 3)])
def test_no_job_begins_after_the_first_failure_if_it_is_to_stop(
    launcher: str, ended: int, way: str, fake_sweep, script: Script
) -> None:
    """Those that are under way are let come to their end."""
    done = fake_sweep(*SWEEP, *LAUNCHERS[launcher], "seed=0,1,2,3,4", "sweep.on_error=stop", sabotage={1: way})
    assert done.returncode == 1
    others = ["completed"] * (ended - 2)
    assert states() == ["completed", FAILURES[way][0], *others, *["planned"] * (5 - ended)]
    assert script.calls == {"halt": 1, "close": 1}
    if way == "damage":
        (outcomes_of()[1].folder / "result.json").unlink()
    assert fake_sweep("resume", "sweep").returncode == 0
    assert states() == ["completed"] * 5
    assert Counter(number for number, _ in script.started) == Counter({0: 1, 1: 2, 2: 1, 3: 1, 4: 1})


def test_it_is_tried_again_before_it_stops_the_sweep(fake_sweep) -> None:
    words = ["seed=0,1", "sweep.on_error=stop", "sweep.retries=1"]
    assert fake_sweep(*SWEEP, *words, sabotage={0: "once raise"}).returncode == 0
    assert states() == ["completed"] * 2


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGUSR2, 143)],
)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_signal_stops_all_jobs_and_the_sweep_goes_on(
    launcher: str, number: int, code: int, fake_sweep, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("era_cnn.runs.stopping.handled_signals", lambda: SIGNALS)  # the tests may run under nohup
    script.at_look = {2: lambda: os.kill(os.getpid(), number)}
    done = fake_sweep(*FOUR_EPOCHS, *LAUNCHERS[launcher], "seed=0,1,2,3")
    under_way = 3 if launcher == "local" else 1
    assert (done.returncode, done.stderr) == (code, "")
    assert states() == ["interrupted"] * under_way + ["planned"] * (4 - under_way)
    assert script.stopped == list(range(under_way))
    assert ledger()[-under_way:] == [(job, "interrupted") for job in range(under_way)]
    assert "To resume what is not done: era-cnn resume sweep" in done.stdout
    assert fake_sweep("resume", "sweep").returncode == 0
    assert states() == ["completed"] * 4
    assert [epoch for job, epoch in script.started if job == 0] == [1, 3]


def test_jobs_that_were_handed_over_and_cannot_be_stopped_are_left_to_go_on(fake_sweep, script: Script) -> None:
    script.first_state, script.can_withdraw = "queued", False
    script.at_look = {1: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    done = fake_sweep(*FOUR_EPOCHS, *LAUNCHERS["local"], "seed=0,1,2,3")
    assert done.returncode == 143
    assert script.stopped == [0, 1, 2]
    assert ledger()[4:] == [(0, "queued"), (1, "queued"), (2, "queued")]
    assert script.looks == 2  # nobody waits for them


def test_a_job_that_is_done_elsewhere_in_the_meantime_is_not_done_again(fake_sweep, script: Script) -> None:
    def do_elsewhere() -> None:
        sweep = SweepFolder(Path("sweep").absolute())
        elsewhere = FakeExecutor(sweep.path, Script())
        elsewhere.start(sweep.jobs()[1])
        while not elsewhere.ended(0):
            pass

    script.at_look = {1: do_elsewhere}
    done = fake_sweep(*SWEEP, "seed=0,1,2")
    assert done.returncode == 0
    assert [number for number, _ in script.started] == [0, 2]
    assert (1, "completed") in ledger()
    assert "3 of 3 jobs done" in done.stdout


def test_a_job_that_another_process_is_at_is_waited_for(fake_sweep, script: Script) -> None:
    locks = ExitStack()

    def lock() -> None:
        sweep = SweepFolder(Path("sweep").absolute())
        locks.enter_context(sweep.run(sweep.jobs()[1]).locked())

    script.at_look = {1: lock, 10: locks.close}
    assert fake_sweep(*SWEEP, "seed=0,1").returncode == 0
    assert states() == ["completed"] * 2
    assert script.started == [(0, 1), (1, 1)]
    assert script.looks > 10


@dataclass
class Doomed(Listed):
    """Jobs that are all known, of which some turn out to be hopeless once they have done an epoch."""

    jobs: Sequence[Job]
    numbers: Sequence[int]
    told: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.jobs)

    def hopeless(self, running: Sequence[Job]) -> Sequence[Job]:
        return [job for job in running if job.number in self.numbers]

    def tell(self, job: Job, outcome: Outcome) -> None:
        self.told.append((job.number, outcome.state))


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Drive]]:
    """Makes the driver of a sweep of some jobs of four epochs, with all that it drives a fake."""
    with ExitStack() as locks:

        def make(script: Script, *, hopeless: Sequence[int] = (), at_once: int = 2, **board: bool) -> Drive:
            args = parse_words([*FOUR_EPOCHS, "seed=0,1,2"])
            composed, _ = compose_typed(Words.of(args), args)
            planner = Planner(Words.of(args), composed)
            Path("sweep").mkdir()
            sweep = SweepFolder(Path("sweep").absolute())
            locks.enter_context(sweep.locked())
            jobs = sweep.create(as_yaml(composed), planner.plan(planner.grid()))
            config: SweepConfig = sweep_options(composed).sweep
            executor = FakeExecutor(sweep.path, script, at_once)
            source = Doomed(jobs, hopeless)
            common = set.intersection(*(set(job.overrides) for job in jobs))
            return Drive(sweep, source, executor, config, Board(source.expected(), 0, common, **board), StopRequest())

        yield make


def test_a_hopeless_job_is_stopped_once_and_counts_as_done(drive, script: Script, fake_sweep) -> None:
    driver = drive(script, hopeless=[0, 2])
    driver.go()
    assert states() == ["pruned", "completed", "pruned"]
    assert outcomes_of()[0].message == "The pruner stopped it."
    assert script.stopped == [0, 2]
    assert sorted(driver.source.told) == [(0, "pruned"), (1, "completed"), (2, "pruned")]


def test_where_no_job_can_be_stopped_alone_none_is_pruned(drive) -> None:
    script = Script(can_stop_one=False)
    drive(script, hopeless=[0, 1, 2]).go()
    assert states() == ["completed"] * 3
    assert script.stopped == []


def test_a_pruned_job_is_not_done_again(drive, fake_sweep, script: Script) -> None:
    driver = drive(script, hopeless=[0])
    driver.go()
    sweep = SweepFolder(Path("sweep").absolute())
    assert fake_sweep("compare", "sweep").returncode == 0
    assert [outcome.state for outcome in sweep.outcomes(sweep.jobs())] == ["pruned", "completed", "completed"]
    before = list(script.started)
    driver.sweep.ledger.path.unlink()
    driver.sweep.restore_ledger(sweep.jobs())
    assert ledger() == [(0, "pruned"), (1, "completed"), (2, "completed")]
    assert script.started == before


@pytest.mark.parametrize("fails_at", [2, 3])
def test_where_the_ledger_cannot_be_written_all_jobs_are_stopped(
    fails_at: int, drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it notes that a job begins, or that one has ended."""
    script, notes = Script(ways={0: "raise"}), iter(range(1, 100))
    add = Ledger.add

    def fail(self: Ledger, *entries: Entry) -> None:
        if next(notes) >= fails_at:
            raise StorageError("ledger.jsonl must be written, got: No space left on device.")
        add(self, *entries)

    monkeypatch.setattr(Ledger, "add", fail)
    with pytest.raises(StorageError, match="No space left"):
        drive(script).go()
    still = {2: [0], 3: [1]}[fails_at]  # 0 is under way, and 1 was to begin; 0 has failed, and 1 is under way
    assert script.stopped == still
    assert script.calls["close"] == 1
    assert [states()[number] for number in still] == ["interrupted"]


def test_where_nobody_reads_the_output_all_jobs_are_stopped(drive, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(ways={0: "raise"})

    def closed(*arguments: object, **options: object) -> None:
        raise OutputError("Standard output must stay open, got: Broken pipe.")

    driver = drive(script)
    script.at_look = {1: lambda: monkeypatch.setattr("era_cnn.sweeps.board.say", closed)}
    with pytest.raises(OutputError, match="must stay open"):
        driver.go()
    assert script.stopped == [1]  # when it was to be said that job 0 has failed
    assert script.calls["close"] == 1
    assert states() == ["failed", "interrupted", "planned"]


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_a_sweep_that_can_no_longer_print_still_writes_its_table(
    number: int | None, fake_sweep, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*lines: str) -> None:
        raise OutputError("Standard output must stay open, got: Broken pipe.")

    def close() -> None:
        for module in ("board", "commands", "plugin"):
            monkeypatch.setattr(f"era_cnn.sweeps.{module}.say", closed)
        if number is not None:
            os.kill(os.getpid(), number)

    script.at_look = {2: close}
    done = fake_sweep(*FOUR_EPOCHS, *LAUNCHERS["local"], "seed=0,1,2,3")
    assert done.returncode == (1 if number is None else 143)
    rows = Path("sweep/sweep.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[2] for row in rows] == states()
    assert len(rows) == 4
    assert ("interrupted" in states()) == (number is not None)


def test_a_board_in_a_terminal_shows_each_job_and_is_gone_at_the_end(
    drive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("era_cnn.sweeps.board.REFRESH_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "100")
    drive(Script(ways={2: "raise"}), is_terminal=True).go()
    out = capsys.readouterr().out
    for epoch in range(1, 4):
        assert f"| epoch {epoch}/4" in out
    assert "job 0 (seed=0) |" in out
    assert "0 of 3 jobs done" in out
    assert "2 of 3 jobs done, 1 " not in out.splitlines()[-1]  # nothing is left of what moves
    assert out.endswith("\033[J")
    assert "started" not in out
    assert "failed: RuntimeError: on purpose" in out


def test_a_narrow_terminal_has_a_line_a_job_without_bars(
    drive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("era_cnn.sweeps.board.REFRESH_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "4")
    drive(Script(), at_once=3, is_terminal=True).go()
    out = capsys.readouterr().out
    assert "and 3 more\n" in out
    assert "epoch 1/4" not in out


DAMAGE: dict[str, Callable[[Path], object]] = {
    "lost": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "cut after its first line": lambda path: path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n"),
    "other bytes in the middle": lambda path: path.write_bytes(path.read_bytes().replace(b'"number": 1', b"\xff\xfe")),
    "no ledger": lambda path: path.write_text('{"a": 1}\n[]\n', encoding="utf-8"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_happens_to_the_ledger_no_job_is_lost_or_done_twice(damage: str, fake_sweep, script: Script) -> None:
    fake_sweep(*SWEEP, "seed=0,1,2", sabotage={1: "raise"})
    before = [path.read_bytes() for path in sorted(Path("sweep").glob("*/result.json"))]
    DAMAGE[damage](Path("sweep/ledger.jsonl"))
    assert fake_sweep("resume", "sweep").returncode == 0
    assert states() == ["completed"] * 3
    assert Counter(number for number, _ in script.started) == Counter({0: 1, 1: 2, 2: 1})
    latest = Ledger(Path("sweep/ledger.jsonl")).latest()
    assert latest is not None
    assert [entry.job.number for entry in latest] == [0, 1, 2]  # their states are in their folders
    after = [path.read_bytes() for path in sorted(Path("sweep").glob("*/result.json"))]
    assert [after[0], after[2]] == before


def test_a_setting_that_never_acts_gets_one_notice_for_all_jobs(fake_sweep) -> None:
    done = fake_sweep(*SWEEP, "scheduler=step", "trainer.epochs=5,9", "seed=1,2")
    assert done.returncode == 0
    assert done.stderr.count("must change within") == 1
    assert "scheduler=step must change within 5 epochs to have an effect" in done.stderr
    assert done.stderr.endswith("change a key, or train longer. (2 of 4 jobs)\n")
