"""The trainings of the campaign that resumes from every step."""

from __future__ import annotations

from tests.conftest import config_of
from tests.faults.steps import networks_of_experiments, trainings


def test_its_trainings_can_be_composed() -> None:
    networks = networks_of_experiments()
    words = [words for words, _ in trainings(networks)]
    assert len(words) == len(set(words)) >= 24 * len(networks) >= 144
    for each in words[::5]:  # every value of each choice, but not every combination
        config_of(*each)
