"""A mistyped name is answered with those that it may mean."""

from __future__ import annotations

import pytest

from era_cnn.nearest import did_you_mean, nearest


def test_the_nearest_name_is_offered_and_only_if_it_is_near() -> None:
    assert did_you_mean("model3", ["model_3", "sgd"], "No.") == "Did you mean model_3?"
    assert did_you_mean("xyz", ["model_3", "sgd"], "No.") == "No."


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("nope", ["npz", "mnist"], []),
        ("mnsit", ["npz", "mnist"], ["mnist"]),
        ("sdg", ["sgd", "adam"], ["sgd"]),
        ("lr", ["l1", "lrs"], ["lrs"]),
        ("adamm", ["adam", "adamw", "sgd"], ["adam", "adamw"]),
        ("cifar", ["cifar10", "cifar100", "mnist"], ["cifar10"]),
        ("crop", ["centre_crop", "cutout", "random_crop"], ["centre_crop", "random_crop"]),
        ("linear", ["polynomial", "piecewise_linear"], ["piecewise_linear"]),
        ("retry", ["retries", "reuse"], ["retries"]),
        ("epochz", ["trainer.epochs", "epoch_size"], ["trainer.epochs"]),
        ("finl", ["augmentation.rotate.fill", "final"], ["final"]),
        ("optimizr.lr", ["optimizer.lr", "optimizer.l1", "lr"], ["optimizer.lr"]),
        ("data.path", ["data.std", "data.root"], []),
        ("optimizer.foo", ["optimizer", "optimizer.lr"], []),
        ("x" * 10**6, ["x"], []),
    ],
)
def test_near_are_slips_and_parts_of_words(name: str, known: list[str], near: list[str]) -> None:
    assert nearest(name, known) == near


def test_of_many_equally_close_names_none_is_suggested() -> None:
    assert did_you_mean("model_6", [f"model_{number}" for number in range(1, 6)], "No.") == "No."
