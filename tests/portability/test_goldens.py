"""What is compared with the golden digests, and what this machine comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from era_cnn.processor import processor_name
from tests.portability.goldens import (
    END,
    FOLDER,
    START,
    Digests,
    Outcome,
    compare,
    read_outcomes,
    record,
    summary,
    these_features,
    train_in_process,
    write_outcomes,
    write_readme,
)
from tests.portability.trainings import HEADLINE, REFERENCES, trainings

ONE: Digests = {HEADLINE: {"weights": "a", "logits": "b"}, "other": {"weights": "c", "logits": "d"}}
TWO: Digests = {**ONE, "other": {"weights": "c", "logits": "e"}}


def seen(processor: str) -> dict[str, str]:
    return {"processor": processor, "date": "2026-01-01"}


OUTCOMES = [Outcome("2.0", True, ONE, [seen("old"), seen("new")]), Outcome("2.0", False, TWO, [seen("old")])]


@pytest.mark.parametrize(
    ("torch_version", "processor", "digests", "portable", "is_equal", "words"),
    [
        ("2.0", "old", ONE, True, True, "as before"),
        ("2.0", "old", TWO, True, False, "differs in other"),
        ("2.0", "third", ONE, True, True, "not tried before, and comes to the digests of others"),
        ("2.0", "third", TWO, True, None, "no reference for third, which differs from others in other"),
        ("2.0", "old", TWO, False, True, "as before"),
        ("2.0", "old", ONE, False, False, "differs in other"),
        ("2.0", "third", TWO, False, None, "no reference for third"),
        ("2.1", "old", ONE, True, None, "no reference for PyTorch 2.1"),
        ("2.0", "old", {HEADLINE: ONE[HEADLINE]}, True, True, "as before"),
    ],
)
def test_a_machine_is_compared_with_itself_and_with_others(
    torch_version: str, processor: str, digests: Digests, portable: bool, is_equal: bool | None, words: str
) -> None:
    verdict = compare(OUTCOMES, torch_version, processor, digests, portable=portable)
    assert verdict.is_equal is is_equal
    assert words in verdict.text


def test_other_features_are_another_processor_unless_the_code_is_fixed() -> None:
    outcomes = [Outcome("2.0", portable, ONE, [{**seen("old"), "features": "a"}]) for portable in (True, False)]
    for features, portable, is_equal in (("a", False, False), ("b", False, None), ("b", True, False)):
        verdict = compare(outcomes, "2.0", "old", TWO, portable=portable, features=features)
        assert verdict.is_equal is is_equal


def test_processors_that_agree_share_an_outcome(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    for processor, digests in (("first", ONE), ("second", TWO), ("third", ONE), ("second", ONE)):
        record(outcomes, "2.0", seen(processor), digests, portable=True)
    record(outcomes, "2.0", seen("first"), ONE, portable=False)
    assert [[each["processor"] for each in outcome.processors] for outcome in outcomes] == [
        ["first", "third", "second"],
        ["first"],
    ]
    write_outcomes(outcomes, tmp_path)
    assert read_outcomes(tmp_path) == outcomes
    (tmp_path / "README.md").write_text(f"Before\n{START}\nold\n{END}\nAfter\n", encoding="utf-8")
    write_readme(outcomes, tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8").count("| first |") == 2
    assert "Before\n" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_page_says_what_was_observed() -> None:
    assert summary(read_outcomes()) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_every_training_has_a_golden_digest() -> None:
    """A new transform, optimizer or schedule is added by `make portability`."""
    named = {name for name, _ in trainings(Path("colours.npz"))}
    outcomes = [each for each in read_outcomes() if each.portable]
    assert any(named == each.digests.keys() for each in outcomes)


@pytest.mark.process
@pytest.mark.parametrize("portable", [True, False], ids=["portable", "default"])
def test_this_machine_comes_to_the_golden_digests(portable: bool) -> None:
    """Skipped, after training, where there is nothing to compare with."""
    digests = train_in_process(portable=portable, only=() if portable else REFERENCES)
    verdict = compare(
        read_outcomes(), torch.__version__, processor_name(), digests, portable=portable, features=these_features()
    )
    if verdict.is_equal is None:
        pytest.skip(verdict.text)
    assert verdict.is_equal, verdict.text
