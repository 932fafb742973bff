from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from era_cnn.config.choices import OPTIMIZERS, SCHEDULERS, Registry
from era_cnn.config.schedule import Schedule
from era_cnn.config.schema import make_schedule
from era_cnn.config.sections import FieldError
from era_cnn.training.rates import Rates
from tests.conftest import CONF_DIR, config_of, option
from tests.helpers import nothing_stays_registered, schedule_of, section_of

EPOCHS, STEPS_PER_EPOCH = 15, 20
TOTAL = EPOCHS * STEPS_PER_EPOCH
SGD, ADAM = torch.optim.SGD, torch.optim.Adam


@pytest.mark.parametrize(("group", "known"), [("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)])
def test_every_name_of_the_config_is_there_and_no_other(group: str, known: Registry) -> None:
    assert {path.stem for path in (CONF_DIR / group).rglob("*.yaml")} == set(known)


def optimizer_of(kind: type[torch.optim.Optimizer] = SGD) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(2)]
    return kind(groups, lr=0.1, **({"momentum": 0.9} if kind is SGD else {"betas": (0.9, 0.98)}))


def momentum_of(optimizer: torch.optim.Optimizer) -> float:
    group = optimizer.param_groups[1]
    return group["betas"][0] if "betas" in group else group["momentum"]


def of_torch(make: Callable, steps: int = TOTAL, kind: type = SGD, updates_per_step: int = 1) -> list[tuple]:
    """Learning rate and momentum at each step of one of PyTorch's own schedulers, stepped after each update."""
    optimizer = optimizer_of(kind)
    scheduler = make(optimizer)
    found = []
    for step in range(steps):
        found.append((optimizer.param_groups[1]["lr"], momentum_of(optimizer)))
        optimizer.step()
        if (step + 1) % updates_per_step == 0:
            scheduler.step()
    return found


def of_ours(schedule: Schedule, kind: type = SGD, steps: int = TOTAL) -> list[tuple]:
    optimizer = optimizer_of(kind)
    before = [{key: value for key, value in group.items() if key != "lr"} for group in optimizer.param_groups]
    rates, found = Rates(optimizer, schedule), []
    for step in range(steps):
        rates.set(step)
        found.append((optimizer.param_groups[1]["lr"], momentum_of(optimizer)))
        assert rates.lr(step) == optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"]
        for group, old in zip(optimizer.param_groups, before, strict=True):  # nothing else of a group changes
            moved = {"momentum", "lr"} if kind is SGD else {"betas", "lr"}
            assert {key: group[key] for key in old if key not in moved} == {
                key: value for key, value in old.items() if key not in moved
            }
            assert kind is SGD or group["betas"][1] == 0.98
    return found


def assert_same(ours: Sequence[tuple], theirs: Sequence[tuple], rel: float = 1e-9) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=rel, abs=1e-15)


def ours(name: str, *, epochs: int = EPOCHS, **fields: object) -> Schedule:
    return schedule_of(name, epochs=epochs, steps_per_epoch=STEPS_PER_EPOCH, **fields)


@pytest.mark.parametrize(
    ("name", "fields", "theirs"),
    [
        ("step", {"every_epochs": 6.0, "gamma": 0.1}, lambda opt: torch_schedules.StepLR(opt, 120, 0.1)),
        (
            "multi_step",
            {"milestones": [2.0, 3.5, 14.95], "gamma": 0.3},
            lambda opt: torch_schedules.MultiStepLR(opt, [40, 70, 299], 0.3),
        ),
        ("exponential", {"gamma": 0.5}, lambda opt: torch_schedules.ExponentialLR(opt, 0.5 ** (1 / 20))),
        ("polynomial", {"power": 1.0}, lambda opt: torch_schedules.PolynomialLR(opt, TOTAL, 1.0)),
        ("polynomial", {"power": 2.5}, lambda opt: torch_schedules.PolynomialLR(opt, TOTAL, 2.5)),
        (
            "cosine",
            {"warmup_epochs": 0.0, "final_factor": 0.1},
            lambda opt: torch_schedules.CosineAnnealingLR(opt, TOTAL, 0.01),
        ),
        *(
            (
                "cosine",
                {"warmup_epochs": 0.0, "descent_epochs": epochs, "final_factor": 0.1},
                lambda opt, epochs=epochs: torch_schedules.CosineAnnealingLR(opt, round(20 * epochs), 0.01),
            )
            for epochs in (0.05, 4.0, 14.95)
        ),
        (
            "constant",
            {"warmup_epochs": 2.0},
            lambda opt: torch_schedules.LambdaLR(opt, lambda step: min(1, (step + 1) / 40)),
        ),
        *(
            (
                "warm_restarts",
                {"cycle_epochs": epochs, "cycle_mult": mult, "final_factor": 0.1},
                lambda opt, epochs=epochs, mult=mult: torch_schedules.CosineAnnealingWarmRestarts(
                    opt, round(20 * epochs), mult, 0.01
                ),
            )
            for epochs in (0.05, 1.0, 3.5, 15.0)
            for mult in (1, 2, 3)
        ),
        (
            "piecewise_linear",
            {"points": [[0, 0.5], [4, 0.5], [4, 1], [10, 0.25]]},
            lambda opt: torch_schedules.LambdaLR(
                opt, lambda step: 0.5 if step < 80 else max(0.25, 1 - 0.75 * (step - 80) / 120)
            ),
        ),
    ],
)
def test_a_schedule_is_pytorchs_step_by_step(name: str, fields: dict[str, object], theirs: Callable) -> None:
    assert_same(of_ours(ours(name, **fields)), of_torch(theirs))


@pytest.mark.parametrize("kind", [SGD, ADAM])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("anneal", "theirs"), [("cosine", "cos"), ("linear", "linear")])
@pytest.mark.parametrize("pct_start", [0.0068, 0.2, 0.3, 0.4999])
@pytest.mark.parametrize("momenta", [None, (0.85, 0.95)])
def test_one_cycle_is_pytorchs_in_every_combination(kind, three_phase, anneal, theirs, pct_start, momenta) -> None:
    cycled = {"base_momentum": momenta[0], "max_momentum": momenta[1]} if momenta else {}
    schedule = ours(
        "one_cycle", pct_start=pct_start, div_factor=25.0, final_div_factor=1e4, anneal=anneal,
        three_phase=three_phase, **cycled,
    )  # fmt: skip
    expected = of_torch(
        lambda opt: torch_schedules.OneCycleLR(
            opt, 0.1, TOTAL, pct_start=pct_start, anneal_strategy=theirs, three_phase=three_phase,
            cycle_momentum=momenta is not None, **cycled,
        ),
        kind=kind,
    )  # fmt: skip
    found = of_ours(schedule, kind)
    assert_same(found, expected)
    bounds = momenta or (0.9, 0.9)
    assert all(bounds[0] <= momentum <= bounds[1] for _, momentum in found)


def test_one_cycle_by_epochs_is_one_cycle_by_its_share() -> None:
    fields = {"div_factor": 25.0, "final_div_factor": 1e4}
    by_epochs, by_share = ours("one_cycle", warmup_epochs=3.0, **fields), ours("one_cycle", pct_start=0.2, **fields)
    assert_same(of_ours(by_epochs), of_ours(by_share))
    assert by_epochs.lr(59) == 1.0
    assert by_epochs.lr(TOTAL - 1) == pytest.approx(1 / (25 * 1e4))


@pytest.mark.parametrize("kind", [SGD, ADAM])
@pytest.mark.parametrize(("mode", "gamma"), [("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.995)])
@pytest.mark.parametrize(("up", "down"), [(2.0, None), (1.0, 3.0), (0.05, 0.05), (15.0, None)])
@pytest.mark.parametrize("momenta", [None, (0.8, 0.9)])
def test_cyclic_is_pytorchs(kind, mode, gamma, up, down, momenta) -> None:
    cycled = {"base_momentum": momenta[0], "max_momentum": momenta[1]} if momenta else {}
    schedule = ours("cyclic", mode=mode, gamma=gamma, up_epochs=up, down_epochs=down, div_factor=10.0, **cycled)
    expected = of_torch(
        lambda opt: torch_schedules.CyclicLR(
            opt, 0.01, 0.1, round(20 * up), down and round(20 * down), mode, gamma,
            cycle_momentum=momenta is not None, **cycled,
        ),
        kind=kind,
    )  # fmt: skip
    assert_same(of_ours(schedule, kind), expected, rel=1e-7)


@pytest.mark.parametrize(
    ("name", "fields", "theirs"),
    [
        ("exponential", {"gamma": 0.5}, lambda opt: torch_schedules.ExponentialLR(opt, 0.5)),
        (
            "one_cycle",
            {"pct_start": 0.3, "div_factor": 10.0, "final_div_factor": 100.0, "base_momentum": 0.85,
             "max_momentum": 0.95},
            lambda opt: torch_schedules.OneCycleLR(opt, 0.1, EPOCHS, div_factor=10.0, final_div_factor=100.0),
        ),
        ("warm_restarts", {"cycle_epochs": 4.0, "cycle_mult": 2}, lambda opt: torch_schedules.CosineAnnealingWarmRestarts(opt, 4, 2)),
        ("cosine", {"warmup_epochs": 0.0, "final_factor": 0.0}, lambda opt: torch_schedules.CosineAnnealingLR(opt, EPOCHS)),
        (
            "cosine",
            {"warmup_epochs": 0.0, "descent_epochs": 5.0, "final_factor": 0.1},
            lambda opt: torch_schedules.CosineAnnealingLR(opt, 5, 0.01),
        ),
    ],
)  # fmt: skip
def test_a_schedule_can_be_updated_once_an_epoch(name: str, fields: dict[str, object], theirs: Callable) -> None:
    """As with `scheduler.step()` after each epoch."""
    schedule = ours(name, update="epoch", **fields)
    assert_same(of_ours(schedule), of_torch(theirs, updates_per_step=STEPS_PER_EPOCH))


def test_restarts_begin_at_the_peak_and_follow_the_closed_form() -> None:
    schedule = ours("warm_restarts", cycle_epochs=1.0, cycle_mult=2, final_factor=0.2)
    assert [schedule.lr(step) for step in (0, 20, 60, 140)] == [1.0] * 4
    minimum = 0.2 + 0.8 * (1 + math.cos(math.pi * 39 / 40)) / 2
    assert schedule.lr(59) == pytest.approx(minimum)


WARM = {
    "constant": {},
    "step": {"every_epochs": 15.0, "gamma": 0.5},
    "multi_step": {"milestones": [14.0], "gamma": 0.5},
    "exponential": {"gamma": 0.5},
    "polynomial": {"power": 1.0},
    "cosine": {"final_factor": 0.0},
    "warm_restarts": {"cycle_epochs": 0.0005},
    "cyclic": {"mode": "triangular", "up_epochs": 0.0005, "div_factor": 1.0},
    "plateau": {"factor": 0.1, "patience": 1},
}


@pytest.mark.parametrize("name", WARM)
@pytest.mark.parametrize(("warmup_epochs", "steps"), [(0.0, 0), (0.05, 1), (1.0, 20), (14.95, 299), (14.999, 300)])
def test_each_warm_up_is_a_line_that_ends_at_the_peak(name: str, warmup_epochs: float, steps: int) -> None:
    schedule = ours(name, warmup_epochs=warmup_epochs, **WARM[name])
    expected = [(step + 1) / max(1, steps) for step in range(steps)]
    assert [schedule.lr(step) for step in range(steps)] == pytest.approx(expected)
    if steps < TOTAL and name != "multi_step":
        assert schedule.lr(steps) == 1.0


def test_milestones_count_from_the_beginning_of_the_training() -> None:
    for name, fields in (("multi_step", {"milestones": [2.0, 4.0]}), ("step", {"every_epochs": 2.0})):
        schedule = ours(name, gamma=0.5, warmup_epochs=1.0, **fields)
        assert [schedule.lr(step) for step in (19, 39, 40, 79, 80)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_cosine_falls_after_its_warm_up() -> None:
    warm = [0.1 * ours("cosine", warmup_epochs=1.0, final_factor=0.0).lr(step) for step in range(TOTAL)]
    assert warm[:STEPS_PER_EPOCH] == pytest.approx([0.1 * (step + 1) / 20 for step in range(20)])
    assert max(warm) == warm[STEPS_PER_EPOCH] == 0.1


def test_constant_is_constant() -> None:
    assert {ours("constant").lr(step) for step in range(TOTAL)} == {1.0}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_is_a_function_of_the_step_within_its_bounds(name: str) -> None:
    options = config_of(*option("scheduler", name)).scheduler.model_dump(exclude={"name"})
    factors = [ours(name, **options).lr(step) for step in range(TOTAL)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors == [ours(name, **options).lr(step) for step in range(TOTAL)]


@pytest.mark.parametrize("warmup_epochs", [0.01, 0.05, 14.99])
def test_extreme_durations_still_give_a_schedule(warmup_epochs: float) -> None:
    for name, rest in (("one_cycle", {"div_factor": 25.0, "final_div_factor": 1e4}), ("cosine", {"final_factor": 0.0})):
        schedule = ours(name, warmup_epochs=warmup_epochs, **rest)
        assert all(0 <= schedule.lr(step) <= 1 for step in range(TOTAL))


def reduced_by_torch(values: Sequence[float], watch: str, **fields: object) -> list[float]:
    """The factor after each value, from PyTorch's ReduceLROnPlateau."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {{"min_factor": "min_lr"}.get(key, key): value for key, value in fields.items()}
    scheduler = torch_schedules.ReduceLROnPlateau(optimizer, "min" if "loss" in watch else "max", eps=0, **options)
    found = []
    for value in values:
        scheduler.step(value)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def reduced_by_us(values: Sequence[float], watch: str, **fields: object) -> list[float]:
    after = ours("plateau", watch=watch, **fields).after
    assert after is not None
    assert after([]) == 1.0
    return [after(values[: count + 1]) for count in range(len(values))]


@pytest.mark.parametrize("watch", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("cooldown", [0, 1, 3])
@pytest.mark.parametrize("patience", [0, 1, 4])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_is_pytorchs_on_random_values(watch: str, cooldown: int, patience: int, threshold_mode: str) -> None:
    stream = random.Random(f"{watch} {cooldown} {patience}")
    for threshold in (0.0, 1e-4, 0.1):
        values = [stream.choice([0.3, 0.5, 0.50001, 0.6, math.nan, stream.random()]) for _ in range(60)]
        fields = {"factor": 0.5, "patience": patience, "cooldown": cooldown, "threshold": threshold,
                  "threshold_mode": threshold_mode, "min_factor": 0.01}  # fmt: skip
        mine, theirs = reduced_by_us(values, watch, **fields), reduced_by_torch(values, watch, **fields)
        assert mine == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "fields", "factors"),
    [
        # With patience 2, the third bad value in a row reduces.
        ([1.0, 1.0, 1.0, 1.0, 1.0], {"patience": 2}, [1, 1, 1, 0.1, 0.1]),
        ([1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0], {"patience": 2}, [1, 1, 1, 1, 1, 1, 0.1]),
        # The values of a cooldown are not counted as bad.
        ([1.0] * 7, {"patience": 0, "cooldown": 2}, [1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        # A value that is not a number is bad.
        ([1.0, math.nan, math.nan, 0.5], {"patience": 1}, [1, 1, 0.1, 0.1]),
        ([math.nan, math.nan, 0.5, 0.4], {"patience": 1}, [1, 0.1, 0.1, 0.1]),
        # Better by less than the threshold is bad.
        ([1.0, 0.95, 0.94], {"patience": 0, "threshold": 0.1}, [1, 0.1, 0.01]),
        ([1.0, 0.5, 0.44], {"patience": 0, "threshold": 0.1}, [1, 1, 1]),
        ([1.0, 0.5, 0.44], {"patience": 0, "threshold": 0.1, "threshold_mode": "abs"}, [1, 1, 0.1]),
        # There is a lowest learning rate.
        ([1.0] * 4, {"patience": 0, "min_factor": 0.05}, [1, 0.1, 0.05, 0.05]),
    ],
)
def test_plateau_by_hand(values: list[float], fields: dict[str, object], factors: list[float]) -> None:
    assert reduced_by_us(values, "val_loss", factor=0.1, **fields) == pytest.approx(factors)
    assert reduced_by_torch(values, "val_loss", factor=0.1, **fields) == pytest.approx(factors)


def test_plateau_on_an_accuracy_reduces_when_it_does_not_rise() -> None:
    assert reduced_by_us([0.1, 0.2, 0.3], "val_accuracy", factor=0.1, patience=0) == [1, 1, 1]
    assert reduced_by_us([0.3, 0.2, 0.1], "val_accuracy", factor=0.1, patience=0) == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("one_cycle", {}, "scheduler.pct_start must be given instead of warmup_epochs, or the other way round, got null. Set"),
        ("one_cycle", {"warmup_epochs": 1.0, "pct_start": 0.3}, "scheduler.pct_start must be given instead of warmup_epochs"),
        ("one_cycle", {"pct_start": 0.003}, "scheduler.pct_start must be more than one step of the training, 0.00333, got 0.003. The training has 300 steps: raise"),
        ("one_cycle", {"pct_start": 0.6, "three_phase": True}, "scheduler.pct_start must leave a step for each of the three"),
        ("one_cycle", {"warmup_epochs": 7.6, "three_phase": True}, "scheduler.warmup_epochs must leave a step for each of"),
        ("one_cycle", {"warmup_epochs": 0.05, "three_phase": True}, "scheduler.warmup_epochs must leave a step for each of"),
        ("one_cycle", {"warmup_epochs": 15.0}, "scheduler.warmup_epochs must be shorter than trainer.epochs, 15, got 15.0."),
        ("one_cycle", {"pct_start": 0.3, "base_momentum": 0.8}, "scheduler.max_momentum must be given with the other bound"),
        ("one_cycle", {"pct_start": 0.3, "max_momentum": 0.8}, "scheduler.base_momentum must be given with the other bound"),
        ("cyclic", {"up_epochs": 2.0, "max_momentum": 0.8, "base_momentum": 0.9}, "scheduler.base_momentum must be at most"),
        ("cyclic", {"up_epochs": 16.0}, "scheduler.up_epochs must end within the training, which leaves 15 epochs, got 16.0."),
        ("cyclic", {"up_epochs": 1.0, "down_epochs": 20.0}, "scheduler.down_epochs must end within the training"),
        ("cyclic", {"up_epochs": 1.0, "gamma": 0.9}, "scheduler.gamma must be 1 in the mode triangular, got 0.9. Set"),
        ("warm_restarts", {"cycle_epochs": 15.5}, "scheduler.cycle_epochs must end within the training, which leaves 15 epochs"),
        ("warm_restarts", {"cycle_epochs": 14.5, "warmup_epochs": 1.0}, "scheduler.cycle_epochs must end within the training, which leaves 14"),
        ("cosine", {"warmup_epochs": 1.0, "descent_epochs": 14.5}, "scheduler.descent_epochs must end within the training, which leaves 14"),
        ("multi_step", {"milestones": [3.0, 2.0]}, "scheduler.milestones must be in ascending order, got [3.0, 2.0]. Sort"),
        ("multi_step", {"milestones": [3.0, 3.0]}, "scheduler.milestones must be in ascending order"),
        ("multi_step", {"milestones": [3.0, 15.0]}, "scheduler.milestones must lie within trainer.epochs, 15, got [3.0, 15.0]. Remove"),
        ("piecewise_linear", {"points": [[2.0, 1.0], [1.0, 1.0]]}, "scheduler.points must be in the order of their epochs"),
        ("piecewise_linear", {"points": [[2.0, 1.0], [16.0, 0.0]]}, "scheduler.points must end within the training, which leaves 15"),
        *((name, {"warmup_epochs": 15.0}, "scheduler.warmup_epochs must be shorter than trainer.epochs, 15") for name in WARM),
    ],
)  # fmt: skip
def test_a_schedule_that_does_not_fit_the_training_has_its_message(name: str, fields: dict, said: str) -> None:
    usual = {
        **WARM,
        "one_cycle": {"div_factor": 25.0, "final_div_factor": 1e4},
        "cyclic": {"mode": "triangular", "up_epochs": 1.0, "div_factor": 10.0},
    }
    with pytest.raises(FieldError) as caught:
        ours(name, **{**usual.get(name, {}), **fields})
    assert caught.value.at("scheduler").startswith(said)


def test_a_plugin_may_return_the_function_of_the_step_alone() -> None:
    with nothing_stays_registered():

        @SCHEDULERS.register("halved")
        def halved():
            return lambda step: 0.5

        schedule = make_schedule(section_of(SCHEDULERS, "halved"), epochs=1, steps_per_epoch=2)
        assert isinstance(schedule, Schedule)
        assert (schedule.lr(3), schedule.momentum, schedule.after) == (0.5, None, None)
