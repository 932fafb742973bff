from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from era_cnn.runs.listeners.pace import WINDOW_SECONDS, Pace
from era_cnn.training.loop import Step


def messages(
    windows: list[float], *, busy: float = 0.0, cores: int = 2, threads: int = 2, device: str = "cpu", epochs: int = 1
) -> list[str]:
    """What is said of a training of so many seconds a step in each window, over several epochs."""
    said: list[str] = []
    pace = Pace(said.append, busy_cores=lambda threads: busy, num_cores=cores)
    training: Any = SimpleNamespace(config=SimpleNamespace(threads=threads, device=device))
    pace.on_start(training)
    tally: Any = None
    for epoch in range(1, epochs + 1):
        seconds = 0.0
        for each in windows:
            for step in range(round(WINDOW_SECONDS / each / epochs) + 1):
                pace.on_step(Step(epoch, step, 10**6, 0.1, tally, seconds))
                seconds += each
    return said


def test_an_even_pace_is_not_mentioned() -> None:
    assert messages([0.01, 0.012, 0.02, 0.01]) == []


def test_steps_that_become_much_slower_are_mentioned_once() -> None:
    (said,) = messages([0.01, 0.01, 0.05, 0.05, 0.05])
    assert said.startswith(
        "Steps take 50 ms; earlier they took 10 ms. Wait for the other processes, or start runs with"
    )
    assert "threads=1" in said


def test_a_crowded_machine_is_mentioned_once() -> None:
    (said,) = messages([0.01, 0.01, 0.01], busy=1.2)
    assert said.startswith("Other processes use about 1.2 of 2 cores, and this run has 2 threads. Wait for")


def test_a_run_with_one_thread_is_not_told_to_use_one() -> None:
    (said,) = messages([0.01, 0.01, 0.01], busy=2.0, threads=1)
    assert said == (
        "Other processes use about 2.0 of 2 cores, and this run has 1 thread. Wait for the other processes."
    )


@pytest.mark.parametrize(("busy", "cores", "threads"), [(1.2, 4, 2), (0.4, 2, 2), (1.0, 2, 1)])
def test_other_processes_that_leave_enough_cores_are_not(busy: float, cores: int, threads: int) -> None:
    assert messages([0.01, 0.01], busy=busy, cores=cores, threads=threads) == []


def test_short_epochs_make_up_a_window_together() -> None:
    assert len(messages([0.01, 0.01, 0.01], busy=1.2, epochs=8)) == 1


def test_on_another_device_threads_are_no_remedy() -> None:
    (said,) = messages([0.01, 0.05], busy=5.0, device="cuda")
    assert said == "Steps take 50 ms; earlier they took 10 ms. See what else uses the device."


def test_its_failure_never_ends_a_run() -> None:
    assert not Pace.is_essential
