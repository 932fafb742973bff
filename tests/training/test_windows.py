from __future__ import annotations

import pytest
import torch

from era_cnn.training.evaluate import Tally
from era_cnn.training.windows import MOST_IN_EPOCH, MOST_IN_TRAINING, Steps, ends_window, num_windows

CPU = torch.device("cpu")


@pytest.mark.parametrize("num_steps", [1, 7, 99, 100, 101, 938, 10_007])
@pytest.mark.parametrize("windows", [1, 20, 100])
def test_windows_cover_an_epoch_evenly(num_steps: int, windows: int) -> None:
    ends = [step + 1 for step in range(num_steps) if ends_window(step, num_steps, windows)]
    lengths = {after - before for before, after in zip([0, *ends], ends, strict=False)}
    assert len(ends) == min(windows, num_steps)
    assert ends[-1] == num_steps
    assert max(lengths) - min(lengths) <= 1


def test_a_long_training_has_no_more_windows_than_a_checkpoint_can_hold() -> None:
    assert num_windows(20) == MOST_IN_EPOCH
    assert num_windows(1) == MOST_IN_EPOCH
    assert all(num_windows(epochs) * epochs <= MOST_IN_TRAINING for epochs in range(1, MOST_IN_TRAINING))
    assert num_windows(10**6) == 1


@pytest.mark.parametrize("class_weights", [None, torch.tensor([1.0, 10.0])])
def test_a_window_has_the_mean_over_its_images(class_weights: torch.Tensor | None) -> None:
    """Two windows of two batches each, the last batch smaller."""
    tally = Tally(CPU)
    losses, labels = [1.0, 2.0, 5.0, 7.0], [[0, 0], [0, 1], [1, 1], [1]]
    weights = [2.0, 11.0, 20.0, 10.0] if class_weights is not None else [2, 2, 2, 1]
    for step, (loss, batch) in enumerate(zip(losses, labels, strict=True), start=1):
        tally.add(torch.tensor(loss), torch.eye(2)[batch], torch.tensor(batch), class_weights)
        if step % 2 == 0:
            tally.end_window(step, 0.1 * step)
    means = [sum(losses[i] * weights[i] for i in pair) / sum(weights[i] for i in pair) for pair in ((0, 1), (2, 3))]
    steps = tally.windows.steps()
    assert (steps.step, steps.images, steps.lr) == ([2, 4], [4, 3], [0.2, 0.4])
    assert steps.loss == pytest.approx(means)
    assert Tally.from_state(tally.state(), CPU).windows.steps() == steps


def test_rows_are_those_of_the_file() -> None:
    steps = Steps([2, 4], [4, 3], [1.5, 0.5], [0.1, 0.2])
    assert steps.rows(3) == [
        {"epoch": 3, "step": 2, "images": 4, "loss": 1.5, "lr": 0.1},
        {"epoch": 3, "step": 4, "images": 3, "loss": 0.5, "lr": 0.2},
    ]
