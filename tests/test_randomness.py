from __future__ import annotations

import torch

from era_cnn import randomness


def test_a_stream_is_a_function_of_seed_purpose_and_position() -> None:
    keys = [
        randomness.key(seed, purpose, *position)
        for seed in (0, 1, 11)
        for purpose in ("shuffle", "dropout")
        for position in ((1,), (1, 1), (11,), (1, 11), (11, 1))
    ]
    assert len(set(keys)) == len(keys)
    assert randomness.key(1, "shuffle", 2) == randomness.key(1, "shuffle", 2)


def test_keys_stay_what_they_are() -> None:
    # Another value here means other numbers in every run: a change for the changelog, not a refactoring.
    assert randomness.key(1, "shuffle", 1) == 5622050589872193249


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=randomness.generator(1, "augment", 1, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_the_modules_sets_the_global_generator() -> None:
    randomness.seed_modules(torch.device("cpu"), 1, "dropout", 1, 2)
    first = torch.rand(3)
    randomness.seed_modules(torch.device("cpu"), 1, "dropout", 1, 2)
    assert torch.equal(torch.rand(3), first)
