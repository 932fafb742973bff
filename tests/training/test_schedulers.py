from __future__ import annotations

import copy

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from era_cnn.training.optim import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from tests.conftest import CONF_DIR, config_of

EPOCHS, STEPS_PER_EPOCH = 15, 20


@pytest.mark.parametrize(("group", "known"), [("optimizer", OPTIMIZERS), ("scheduler", SCHEDULES)])
def test_every_name_of_the_config_is_there_and_no_other(group: str, known: dict[str, object]) -> None:
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
    schedule = make_schedule(name, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH, **options)
    return [0.1 * schedule(step) for step in range(EPOCHS * STEPS_PER_EPOCH)]


def test_step_decay_is_step_lr() -> None:
    theirs = lrs_of_torch(lambda opt: torch_schedules.StepLR(opt, step_size=6 * STEPS_PER_EPOCH, gamma=0.1))
    assert lrs_of_ours("step", every_epochs=6, gamma=0.1) == pytest.approx(theirs, rel=1e-12)


def test_one_cycle_is_one_cycle_lr() -> None:
    total = EPOCHS * STEPS_PER_EPOCH
    theirs = lrs_of_torch(
        lambda opt: torch_schedules.OneCycleLR(
            opt, max_lr=0.1, total_steps=total + 1, pct_start=5 * STEPS_PER_EPOCH / (total + 1), cycle_momentum=False
        )
    )
    ours = make_schedule("one_cycle", epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH, warmup_epochs=5,
                         div_factor=25.0, final_div_factor=1e4)  # fmt: skip
    peak = 5 * STEPS_PER_EPOCH - 1
    assert [0.1 * ours(step) for step in range(peak + 1)] == pytest.approx(theirs[: peak + 1], rel=1e-9)
    assert ours(peak) == 1.0
    assert ours(total - 1) == pytest.approx(1 / (25 * 1e4))


def test_cosine_is_cosine_annealing_after_the_warm_up() -> None:
    annealing = lrs_of_torch(
        lambda opt: torch_schedules.CosineAnnealingLR(opt, T_max=EPOCHS * STEPS_PER_EPOCH, eta_min=0.01)
    )
    assert lrs_of_ours("cosine", warmup_epochs=0, final_factor=0.1) == pytest.approx(annealing, rel=1e-9)
    warm = lrs_of_ours("cosine", warmup_epochs=1, final_factor=0.0)
    assert warm[:STEPS_PER_EPOCH] == pytest.approx([0.1 * (step + 1) / 20 for step in range(20)])
    assert max(warm) == warm[STEPS_PER_EPOCH] == 0.1


def test_constant_is_constant() -> None:
    assert set(lrs_of_ours("constant")) == {0.1}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_a_function_of_the_step_within_its_bounds(name: str) -> None:
    options = config_of(f"scheduler={name}").scheduler.options()
    factors = [factor / 0.1 for factor in lrs_of_ours(name, **options)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors == [factor / 0.1 for factor in lrs_of_ours(name, **options)]


@pytest.mark.parametrize("warmup_epochs", [0.01, 0.05, 14.99])
def test_extreme_durations_still_give_a_schedule(warmup_epochs: float) -> None:
    for name, rest in (("one_cycle", {"div_factor": 25.0, "final_div_factor": 1e4}), ("cosine", {"final_factor": 0.0})):
        factors = lrs_of_ours(name, warmup_epochs=warmup_epochs, **rest)
        assert all(0 <= factor <= 0.1 for factor in factors)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_the_options_of_its_config(name: str) -> None:
    config = config_of(f"optimizer={name}", "optimizer.lr=0.123", "optimizer.weight_decay=0.5").optimizer
    optimizer = make_optimizer(config.name, [torch.zeros(1, requires_grad=True)], **config.options())
    assert type(optimizer) is OPTIMIZERS[name]
    assert optimizer.defaults["lr"] == 0.123
    assert optimizer.defaults["weight_decay"] == 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_pytorchs(name: str) -> None:
    options = {"lr": 0.1, "weight_decay": 0.01, **({"momentum": 0.9, "nesterov": True} if name == "sgd" else {})}
    theirs_of = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    weights = [torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))) for _ in range(2)]
    ours, theirs = make_optimizer(name, [weights[0]], **options), theirs_of([weights[1]], fused=True, **options)
    assert isinstance(ours, theirs_of)
    for step in range(5):
        for weight in weights:
            weight.grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        ours.step()
        theirs.step()
        assert torch.equal(*weights)
    assert not weights[0].grad.requires_grad
    state = copy.deepcopy(theirs.state_dict())
    ours.load_state_dict(state)
    assert ours.state_dict()["param_groups"] == state["param_groups"]
