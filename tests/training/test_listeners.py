from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from era_cnn.training.evaluate import Tally
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.listeners import Listener, Listeners, Training
from era_cnn.training.loop import Step
from era_cnn.training.state import TrainingState
from tests.conftest import config_of

EVENTS = ("on_start", "on_step", "on_epoch", "on_end", "close")
NETWORK = torch.nn.Linear(1, 1)


def arguments_of(event: str) -> list[Any]:
    state = TrainingState(NETWORK, torch.optim.SGD(NETWORK.parameters(), lr=0.1))
    return {
        "on_start": [Training(config_of(), state, History(), Path())],
        "on_step": [Step(1, 0, 1, 0.1, Tally(torch.device("cpu")), 0.0)],
        "on_epoch": [EpochMetrics(1, 0.1, 1.0, 0.5, 1.0, None, None, {})],
        "on_end": [{"epochs": 1}],
        "close": [],
    }[event]


class Recorder(Listener):
    """Notes what it hears, and fails where it is told to."""

    def __init__(self, name: str, heard: list[str], *, fails_in: str = "", error: BaseException | None = None) -> None:
        self.name, self.heard, self.fails_in, self.error = name, heard, fails_in, error or RuntimeError("of no use")

    def __getattribute__(self, event: str) -> Any:
        if event not in EVENTS:
            return super().__getattribute__(event)

        def hear(*arguments: Any) -> None:
            self.heard.append(f"{self.name} {event}")
            if event == self.fails_in:
                raise self.error

        return hear


class Essential(Recorder):
    is_essential = True


def tell(everybody: Listeners, *events: str) -> None:
    for event in events:
        getattr(everybody, event)(*arguments_of(event))


def test_a_listener_that_overrides_nothing_hears_in_silence() -> None:
    listener = Listener()
    assert not listener.is_essential
    for event in EVENTS:
        assert getattr(listener, event)(*arguments_of(event)) is None


def test_everybody_hears_everything_in_their_order() -> None:
    heard: list[str] = []
    everybody = Listeners([Recorder("b", heard), Recorder("a", heard), Essential("c", heard)], warn=pytest.fail)
    tell(everybody, *EVENTS)
    assert heard == [f"{name} {event}" for event in EVENTS for name in ("b", "a", "c")]


def test_a_listener_that_fails_and_can_not_be_closed_is_reported_once() -> None:
    class Stuck(Listener):
        def on_step(self, step: Step) -> None:
            raise RuntimeError("once")

        def close(self) -> None:
            raise RuntimeError("twice")

    said: list[str] = []
    tell(Listeners([Stuck()], warn=said.append), "on_step", "on_step", "close")
    assert said == ["The listener Stuck failed in on_step and is no longer called, got RuntimeError: once."]


@pytest.mark.parametrize("event", EVENTS)
def test_a_listener_that_fails_is_reported_once_and_dropped(event: str) -> None:
    heard: list[str] = []
    said: list[str] = []
    everybody = Listeners([Recorder("a", heard, fails_in=event), Recorder("b", heard)], warn=said.append)
    tell(everybody, event, *EVENTS, *EVENTS)
    assert said == [f"The listener Recorder failed in {event} and is no longer called, got RuntimeError: of no use."]
    closed = [] if event == "close" else ["a close"]
    assert [each for each in heard if each.startswith("a")] == [f"a {event}", *closed]
    assert [each for each in heard if each.startswith("b")] == [f"b {each}" for each in (event, *EVENTS, *EVENTS)]


@pytest.mark.parametrize("event", EVENTS)
def test_the_failure_of_an_essential_listener_ends_the_run(event: str) -> None:
    heard: list[str] = []
    listeners = [Recorder("a", heard), Essential("b", heard, fails_in=event), Recorder("c", heard)]
    everybody = Listeners(listeners, warn=pytest.fail)
    with pytest.raises(RuntimeError, match="of no use"):
        tell(everybody, event)
    expected = [f"a {event}", f"b {event}"]
    assert heard == expected + ([f"c {event}"] if event == "close" else [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_a_wish_to_stop_is_no_failure_of_a_listener(error: BaseException) -> None:
    everybody = Listeners([Recorder("a", [], fails_in="on_step", error=error)], warn=pytest.fail)
    with pytest.raises(type(error)):
        tell(everybody, "on_step")


def test_the_listeners_that_were_given_are_left_as_they_are() -> None:
    given = [Recorder("a", [], fails_in="on_step")]
    tell(Listeners(given, warn=lambda said: None), "on_step")
    assert len(given) == 1


def test_one_that_fails_to_close_leaves_none_of_the_others_open() -> None:
    closed: list[str] = []

    class Named(Listener):
        is_essential = True

        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            if self.name == "second":
                raise OSError("it is gone")

    listeners = Listeners([Named("first"), Named("second"), Named("third")], warn=closed.append)
    with pytest.raises(OSError, match="it is gone"):
        listeners.close()
    assert closed == ["first", "second", "third"]
