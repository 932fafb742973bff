from __future__ import annotations

import pytest

from era_cnn.errors import MAX_LINE, ConfigError, RunFolderError, amount, harmless, problem, show


def test_a_problem_has_the_form_that_all_messages_share() -> None:
    said = problem("trainer.epochs", "be at least 1", 0, "Raise it.")
    assert said == "trainer.epochs must be at least 1, got 0. Raise it."


@pytest.mark.parametrize(("value", "shown"), [(True, "true"), (None, "null"), ("a", "'a'"), (0.1, "0.1")])
def test_values_are_shown_as_typed(value: object, shown: str) -> None:
    assert show(value) == shown


def test_a_long_value_is_shortened_to_one_line() -> None:
    assert len(show("x\n" * 1000)) == 80
    assert "\n" not in show("x\n" * 1000)


def test_whatever_is_said_no_line_floods_the_terminal() -> None:
    assert len(harmless("x" * 10**6)) == len(str(RunFolderError("x" * 10**6))) == MAX_LINE


def test_a_config_error_holds_every_problem() -> None:
    assert str(ConfigError(["a", "b"])) == "a\nb"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("x must be y, got: It ends. with a stop.. Fix it.", "x must be y, got: It ends. with a stop. Fix it."),
        ("x must be y, got it..", "x must be y, got it."),
        ("x must be in .., got '..' and ../b and a...b, and so on... Fix it.", None),
        ("cd .. goes up", None),
        ("x/.. must hold runs, got none.", None),
    ],
)
def test_a_sentence_has_one_full_stop_whatever_it_quotes(said: str, shown: str | None) -> None:
    for error in (ConfigError([said]), RunFolderError(said)):
        assert str(error) == (shown or said)


@pytest.mark.parametrize(("number", "text"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (7616, "7,616 epochs")])
def test_an_amount_is_singular_or_plural(number: int, text: str) -> None:
    assert amount(number, "epoch") == text
