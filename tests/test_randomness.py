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


def test_seeding_sets_the_generator_of_the_device() -> None:
    randomness.seed_torch(torch.device("cpu"), 5)
    first = torch.rand(3)
    randomness.seed_torch(torch.device("cpu"), 5)
    assert torch.equal(torch.rand(3), first)


def test_a_stream_begins_again_from_its_seed_whatever_was_drawn() -> None:
    stream = randomness.Stream()
    stream.begin(5)
    first, second = stream.int16(1000), stream.int16(1000)
    torch.rand(10)
    stream.begin(5)
    assert torch.equal(stream.int16(1000), first)
    assert not torch.equal(first, second)
    stream.begin(6)
    assert not torch.equal(stream.int16(1000), first)


def test_streams_do_not_share_their_numbers() -> None:
    one, other, alone = (randomness.Stream() for _ in range(3))
    for stream, seed in ((one, 1), (other, 2), (alone, 1)):
        stream.begin(seed)
    expected = [alone.int16(7) for _ in range(3)]
    drawn = []
    for _ in range(3):
        drawn.append(one.int16(7))
        other.int16(9)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(drawn, expected, strict=True))


def test_the_numbers_of_a_stream_stay_what_they_are() -> None:
    # Another value here means another dropout in every run: a change for the changelog, not a refactoring.
    stream = randomness.Stream()
    stream.begin(1)
    assert stream.int16(6).tolist() == [584, 26870, -2906, -288, -30593, -27677]
