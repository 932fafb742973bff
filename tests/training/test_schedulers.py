from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from era_cnn.config.choices import OPTIMIZERS, SCHEDULERS, Registry
from tests.conftest import CONF_DIR, config_of
from tests.helpers import schedule_of

EPOCHS, STEPS_PER_EPOCH = 15, 20


@pytest.mark.parametrize(("group", "known"), [("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)])
def test_every_name_of_the_config_is_there_and_no_other(group: str, known: Registry) -> None:
    assert {path.stem for path in (CONF_DIR / group).rglob("*.yaml")} == set(known)


def lrs_of_torch(make) -> list[float]:
    """The learning rate at each step of one of PyTorch's own schedulers, stepped after each update."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(optimizer)
    lrs = []
    for _ in range(EPOCHS * STEPS_PER_EPOCH):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def lrs_of_ours(name: str, **options: float) -> list[float]:
    schedule = schedule_of(name, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH, **options)
    return [0.1 * schedule(step) for step in range(EPOCHS * STEPS_PER_EPOCH)]


def test_step_decay_is_step_lr() -> None:
    theirs = lrs_of_torch(lambda opt: torch_schedules.StepLR(opt, step_size=6 * STEPS_PER_EPOCH, gamma=0.1))
    assert lrs_of_ours("step", every_epochs=6.0, gamma=0.1) == pytest.approx(theirs, rel=1e-12)


def test_one_cycle_is_one_cycle_lr() -> None:
    total = EPOCHS * STEPS_PER_EPOCH
    theirs = lrs_of_torch(
        lambda opt: torch_schedules.OneCycleLR(
            opt, max_lr=0.1, total_steps=total + 1, pct_start=5 * STEPS_PER_EPOCH / (total + 1), cycle_momentum=False
        )
    )
    ours = schedule_of("one_cycle", epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH, warmup_epochs=5.0,
                         div_factor=25.0, final_div_factor=1e4)  # fmt: skip
    peak = 5 * STEPS_PER_EPOCH - 1
    assert [0.1 * ours(step) for step in range(peak + 1)] == pytest.approx(theirs[: peak + 1], rel=1e-9)
    assert ours(peak) == 1.0
    assert ours(total - 1) == pytest.approx(1 / (25 * 1e4))


def test_cosine_is_cosine_annealing_after_the_warm_up() -> None:
    annealing = lrs_of_torch(
        lambda opt: torch_schedules.CosineAnnealingLR(opt, T_max=EPOCHS * STEPS_PER_EPOCH, eta_min=0.01)
    )
    assert lrs_of_ours("cosine", warmup_epochs=0.0, final_factor=0.1) == pytest.approx(annealing, rel=1e-9)
    warm = lrs_of_ours("cosine", warmup_epochs=1.0, final_factor=0.0)
    assert warm[:STEPS_PER_EPOCH] == pytest.approx([0.1 * (step + 1) / 20 for step in range(20)])
    assert max(warm) == warm[STEPS_PER_EPOCH] == 0.1


def test_constant_is_constant() -> None:
    assert set(lrs_of_ours("constant")) == {0.1}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_is_a_function_of_the_step_within_its_bounds(name: str) -> None:
    options = config_of(f"scheduler={name}").scheduler.model_dump(exclude={"name"})
    factors = [factor / 0.1 for factor in lrs_of_ours(name, **options)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors == [factor / 0.1 for factor in lrs_of_ours(name, **options)]


@pytest.mark.parametrize("warmup_epochs", [0.01, 0.05, 14.99])
def test_extreme_durations_still_give_a_schedule(warmup_epochs: float) -> None:
    for name, rest in (("one_cycle", {"div_factor": 25.0, "final_div_factor": 1e4}), ("cosine", {"final_factor": 0.0})):
        factors = lrs_of_ours(name, warmup_epochs=warmup_epochs, **rest)
        assert all(0 <= factor <= 0.1 for factor in factors)
