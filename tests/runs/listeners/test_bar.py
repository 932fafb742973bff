from __future__ import annotations

import os
from dataclasses import replace

import pytest

from era_cnn.runs.listeners import bar
from era_cnn.runs.listeners.bar import REFRESH_SECONDS, Bar, describe_progress
from tests.runs.listeners.test_console import CLEARED, step_of


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, "epoch 1 of 20 |▏                      | loss 0.0504, 4 images/s, 01:40 left"),
        (120, "epoch 1 of 20 |▉                           | loss 0.0504, accuracy 75.00%, 4 images/s, 01:40 left"),
        (69, "epoch 1 of 20, loss 0.0504, 4 images/s, 01:40 left"),
        (30, "epoch 1 of 20, loss 0.0504, 4"),
    ],
)
def test_the_line_fits_the_terminal(columns: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "can_show", lambda text: True)
    text = describe_progress(step_of(187), 20, 100.0, columns)
    head, _, tail = line.partition("|")
    assert text.startswith(head)
    assert text.endswith(tail.rpartition("|")[2])
    assert len(text) < columns


def test_the_longest_line_has_a_bar_in_80_columns() -> None:
    long = replace(step_of(937), epoch=1000, seconds=1e-5)
    text = describe_progress(long, 1000, 359_999.0, 80)
    assert len(text) == 79
    assert text.endswith("| loss 0.0504, 400,000 images/s, 99:59:59 left")


def moved(steps: list[tuple[int, float]], capsys: pytest.CaptureFixture[str], epochs: int = 2) -> list[str]:
    """The lines that a bar draws, of steps at these times, of ten an epoch."""
    now = 0.0
    shown = Bar(epochs, clock=lambda: now)
    for done, now in steps:  # noqa: B007 - the clock reads it
        epoch, step = divmod(done - 1, 10)
        shown.move(replace(step_of(step, num_steps=10), epoch=epoch + 1))
    return capsys.readouterr().err.split("\r")[1:]


def test_the_time_that_is_left_is_that_of_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A second a step, and five for the evaluation after the first epoch."""
    lines = moved([(1, 1.0), (2, 2.0), (10, 10.0), (11, 16.0)], capsys)
    assert "left" not in lines[0]
    assert [line.removesuffix("\033[K").rpartition(", ")[2] for line in lines[1:]] == [
        "00:18 left", "00:10 left", "00:13 left"
    ]  # fmt: skip


def test_after_a_resume_only_what_this_process_did_counts(capsys: pytest.CaptureFixture[str]) -> None:
    lines = moved([(15, 100.0), (16, 102.0)], capsys)
    assert "epoch 2 of 2" in lines[1]
    assert "00:08 left" in lines[1]


def test_the_loss_is_not_read_after_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(moved([(step, step * REFRESH_SECONDS / 4) for step in range(1, 10)], capsys)) == 3


def test_it_follows_the_width_of_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((50, 24)))
    (line,) = moved([(3, 1.0)], capsys)
    assert line == "epoch 1 of 2, loss 0.0504, 4 images/s\033[K"


def test_a_closed_standard_error_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    shown = Bar(1)
    shown.move(step_of(0))
    shown.clear()
    assert capsys.readouterr().err.endswith(CLEARED)
    with open(os.devnull, encoding="utf-8") as stream:  # can't be written to
        monkeypatch.setattr("sys.stderr", stream)
        shown.move(step_of(1), at_once=True)
        monkeypatch.undo()
