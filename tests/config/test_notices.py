"""Settings that never act in a training get one notice; those that its length cuts off are refused."""

from __future__ import annotations

import pytest

from era_cnn.compose.composition import experiments
from era_cnn.compose.words import Words
from era_cnn.config.choices import SCHEDULERS
from era_cnn.config.notices import notices
from era_cnn.errors import ConfigError
from tests.conftest import config_of
from tests.helpers import nothing_stays_registered

SHORT = ("experiment=model_4_digits", "trainer.epochs=5")
EARLY = ("trainer.watch=train_loss", "scheduler=constant")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "scheduler=step must change within 5 epochs to have an effect, got every_epochs 6, gamma 0.1. The learning rate never changes: change a key, or train longer."),
        (("scheduler.every_epochs=4",), ""),
        (("scheduler.every_epochs=5",), "scheduler=step must change within 5 epochs to have an effect, got every_epochs 5, gamma 0.1."),
        (("scheduler.every_epochs=1", "scheduler.gamma=1"), "scheduler=step must change within 5 epochs to have an effect, got every_epochs 1, gamma 1."),
        (("scheduler.warmup_epochs=1",), ""),
        (("scheduler=exponential", "scheduler.gamma=1"), "scheduler=exponential must change within 5 epochs"),
        (("scheduler=piecewise_linear", "scheduler.points=[[0,1],[5,1]]"), "scheduler=piecewise_linear must change within"),
        (("scheduler=piecewise_linear", "scheduler.points=[[0,1],[0.5,0.1],[1,1]]"), ""),
        (("scheduler=cosine", "scheduler.update=epoch", "scheduler.warmup_epochs=0", "trainer.epochs=1"), "scheduler=cosine must change within 1 epoch"),
        (("scheduler=constant",), ""),
        (("scheduler=plateau", "trainer.watch=train_loss", "scheduler.patience=2"), ""),
        (("scheduler=plateau", "trainer.watch=train_loss", "scheduler.patience=3"), "scheduler.patience must fit into 5 epochs to have an effect, got 3. The learning rate is never reduced: lower it, or train longer."),
        ((*EARLY, "trainer.early_stopping.patience=3"), ""),
        ((*EARLY, "trainer.early_stopping.patience=4"), "trainer.early_stopping.patience must fit into 5 epochs to have an effect, got 4. The training never ends early: lower it, or train longer."),
        ((*EARLY, "trainer.early_stopping.patience=1", "trainer.eval_every_epochs=2"), ""),
        ((*EARLY, "trainer.early_stopping.patience=1", "trainer.eval_every_epochs=4"), "trainer.early_stopping.patience must fit"),
        ((*EARLY, "trainer.early_stopping.patience=1", "trainer.early_stopping.min_epochs=5"), "trainer.early_stopping.min_epochs must fit into 5 epochs"),
        (("scheduler=constant", "augmentation=affine", "trainer.unaugmented_epochs=4"), ""),
        (("scheduler=constant", "augmentation=affine", "trainer.unaugmented_epochs=5"), "trainer.unaugmented_epochs must be less than 5, the number of epochs, got 5. No epoch is augmented: lower it."),
        (("scheduler=constant", "trainer.unaugmented_epochs=2"), "trainer.unaugmented_epochs must be 0 without an augmentation, got 2. Choose an augmentation, or leave this key out."),
        (("trainer=smoke", "trainer.epochs=15"), ""),
    ],
)  # fmt: skip
def test_what_never_acts_gets_one_notice(words: tuple[str, ...], expected: str) -> None:
    keys = {word.partition("=")[0] for word in words}
    found = notices(config_of(*(word for word in SHORT if word.partition("=")[0] not in keys), *words))
    assert len(found) == bool(expected)
    assert "".join(found).startswith(expected)


@pytest.mark.parametrize(
    "words",
    [
        ("scheduler.warmup_epochs=5",),
        ("scheduler=multi_step", "scheduler.milestones=[2,5]"),
        ("scheduler=piecewise_linear", "scheduler.points=[[0,1],[6,0]]"),
        ("scheduler=one_cycle", "scheduler.warmup_epochs=5"),
        ("scheduler=cosine", "scheduler.descent_epochs=6"),
        ("scheduler=warm_restarts", "scheduler.cycle_epochs=6"),
        ("scheduler=cyclic", "scheduler.up_epochs=6"),
    ],
)
def test_a_point_or_phase_beyond_the_training_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^scheduler\.\w+ must (be shorter than|lie within|end within)"):
        config_of(*SHORT, *words)


def test_a_schedule_without_fields_is_called_a_constant_one() -> None:
    with nothing_stays_registered():
        SCHEDULERS.register("flat")(lambda: lambda step: 1.0)
        (said,) = notices(config_of("~experiment", "scheduler=flat", "trainer.epochs=5"))
    config_of.cache_clear()
    assert said.startswith("scheduler=flat must change within 5 epochs to have an effect, got a constant one. ")


def test_no_experiment_has_a_notice() -> None:
    names = [name for name in experiments(Words()) if not name.startswith(("own_images", "cifar"))]
    assert len(names) > 5
    assert [notices(config_of(f"experiment={name}")) for name in names] == [[]] * len(names)


def test_a_run_and_describe_give_the_notice_once(command) -> None:
    words = [*SHORT, "trainer=smoke", "threads=1", "report=false"]
    for line in (["describe", *words], words):
        code, _, err = command(*line)
        assert (code, err.count("scheduler=step must change within 5 epochs")) == (0, 1), line
