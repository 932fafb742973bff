from __future__ import annotations

import pytest

from era_cnn.config.choices import Registry


def test_names_are_sorted_and_lead_to_what_was_registered() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("two")(2)
    registry.register("one")(1)
    assert dict(registry) == {"one": 1, "two": 2}
    assert list(registry) == ["one", "two"]


def test_a_taken_name_is_refused() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one")(1)
    with pytest.raises(ValueError, match="number 'one' is registered twice; rename one of the two"):
        registry.register("one")
