from __future__ import annotations

from dataclasses import fields

from era_cnn.folders.result import RESULT_KEYS, TIMES, Result


def test_the_keys_of_a_result_are_those_that_are_asked_for() -> None:
    later = ("watched", "end_reason", "ema_val_accuracy", "ema_test_accuracy")
    assert tuple(field.name for field in fields(Result)) == RESULT_KEYS + later
    assert set(TIMES) < set(RESULT_KEYS)


def test_a_result_is_written_in_the_order_of_its_keys() -> None:
    result = Result(**dict.fromkeys(RESULT_KEYS, 1))
    assert list(result.to_json())[: len(RESULT_KEYS)] == list(RESULT_KEYS)
