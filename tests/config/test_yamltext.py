from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from era_cnn.config import yamltext
from era_cnn.config.yamltext import MAX_DEPTH, MAX_DIGITS, MAX_ENTRIES, MAX_INTERPOLATIONS, as_yaml, dump, parse_yaml
from era_cnn.errors import ConfigError
from tests.conftest import EXPERIMENTS, config_of

SCALARS = [
    "1e-3", "1E5", "1.", ".5", "-.5e-3", "+1_000.5", "1_000", "0x1f", "0o17", "017", "0b11", "1:30", "1:30.5", ".inf", "-.Inf", ".nan", "1e999",
    "true", "Yes", "off", "n", "null", "~", "''", "2020-01-01", "2020-01-01 10:00:00", "a b", "'1e-3'", "<", "1e", "e3", "1.5.2", "12e03",
]  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_a_value_is_read_as_omegaconf_reads_it(text: str) -> None:
    expected = OmegaConf.to_container(OmegaConf.create(f"a: {text}"))
    assert repr(parse_yaml("x.yaml", f"a: {text}")) == repr(expected)


@pytest.mark.parametrize(
    "value", [*SCALARS, 1e-5, 1e22, 0.1, float("inf"), 10**20, True, None, "", "ü", "a\nb", "- a", "=", [1, [2.5, "3"]], {"a": {}}, "${a}"]
)  # fmt: skip
def test_what_is_written_is_read_again(value: Any) -> None:
    assert repr(parse_yaml("x.yaml", as_yaml({"a": value}))) == repr({"a": value})


STORED = sorted((Path(__file__).parents[1] / "folders" / "schema_1").glob("**/config.yaml"))
PIECES = [
    *(
        "- ",
        " ",
        "  ",
        "\n",
        ":",
        ": ",
        "-",
        "~",
        "=",
        ".",
        "0",
        "_",
        "1e3",
        "{}",
        "[]",
        "'a b'",
        "''",
        "yes",
        "0x1f",
        ",",
    ),
    *("/", "--- ", "...", "---\n", "...\n", "+", "a: 1\n", "-.inf"),
]


def read_by(loader: type[Any], text: str) -> str:
    try:
        document = loader(text)
        return repr(document.construct_document(document.get_single_node()))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError):
        return "refused"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_config_of_a_run_is_read_fast(experiment: str) -> None:
    text = as_yaml(config_of(f"experiment={experiment}").model_dump())
    assert yamltext._is_simple(text)
    assert read_by(yamltext._FastLoader, text) == read_by(yamltext._Loader, text) != "refused"


def test_what_is_read_fast_is_read_the_same() -> None:
    """However a config was changed by hand."""
    numbers, tried, refused, remembered = random.Random(1), 0, 0, 0
    starts = ["".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:25]) for path in STORED]
    while tried < 300:
        letters = list(numbers.choice(starts))
        for _ in range(numbers.randint(1, 6)):
            place = numbers.randrange(len(letters))
            letters[place : place + numbers.randint(0, 3)] = numbers.choice(PIECES)
        text = "".join(letters)
        if yamltext._is_simple(text):
            tried += 1
            refused += (found := read_by(yamltext._FastLoader, text)) == "refused"
            assert found == read_by(yamltext._Loader, text), text
            by_entry = yamltext._read_by_entry(text)
            assert by_entry is None or repr(by_entry) == found, text
            remembered += by_entry is not None
    assert 10 < refused < 290
    assert remembered > 10


@pytest.mark.parametrize(
    "text",
    ["a: 1\ta", "a:\t1", "\ufeffa: 1", "a: [1", "a: {b:1}", "a: &b c", "a: *b", "a: !!int 1", "a: |\n  b", "a\x85: 1"],
)
def test_what_may_be_read_otherwise_is_not_read_fast(text: str) -> None:
    assert not yamltext._is_simple(f"{text}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "x.yaml must be valid YAML, got: .*found duplicate key a"),
        ("a: 1\na: 2", "x.yaml must be valid YAML, got: .*found duplicate key a"),
        ("- a", r"x.yaml must hold a mapping, got \['a'\]. Write it as key: value."),
        ("a: " + "[" * 30 + "]" * 30, f"x.yaml must be nested at most {MAX_DEPTH} levels deep, got 31."),
        ("a: " + "[" * 5000, "x.yaml must be nested at most 20 levels deep, got many more."),
        (f"a: {'9' * 101}", f"x.yaml must hold no number of more than {MAX_DIGITS} digits"),
        ("a: [" + "1," * MAX_ENTRIES + "]", f"x.yaml must have at most {MAX_ENTRIES:,} entries, got more"),
        ("a: [" + "1," * MAX_ENTRIES + "'", f"x.yaml must have at most {MAX_ENTRIES:,} entries, got more"),  # read no further
        ("a:\n" + "- 1\n" * MAX_ENTRIES, f"x.yaml must have at most {MAX_ENTRIES:,} entries, got more"),
        ("a:\n- " + "- " * 30 + "1\n", f"x.yaml must be nested at most {MAX_DEPTH} levels deep, got 33."),
        ("a:\n" + "- " * 5000 + "1\n", "x.yaml must be nested at most 20 levels deep, got many more."),
        ("a: &a [*a]", "x.yaml must be finite, got an alias that contains itself."),
        ("b: &b [1, 1]\n" + "".join(f"b{i}: &b{i} [*b{i - 1 or ''}, *b{i - 1 or ''}]\n" for i in range(1, 15)), "x.yaml must have at most"),
        ("a: " + "${b}" * 201, f"x.yaml must hold at most {MAX_INTERPOLATIONS} interpolations, got 201."),
        ("a: !!python/object/apply:os.system ['touch sprung']", "could not determine a constructor"),
        ("a: !!python/object/apply:pathlib.Path [a]", "could not determine a constructor"),
        ("a: !!timestamp x", "could not determine a constructor"),
        ("a: !!binary x", "could not determine a constructor"),
    ],
)  # fmt: skip
def test_what_is_no_config_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_yaml("x.yaml", text)


def test_nothing_is_an_empty_mapping() -> None:
    assert parse_yaml("x.yaml", "") == parse_yaml("x.yaml", "# a comment") == {}


def test_other_readers_of_yaml_are_left_alone() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    assert yaml.safe_dump("1e-3") == "1e-3\n...\n"


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        [1, {"a": 2}],
        "text",
        {"a": None},
        {"a": {}},
        {"a": []},
        {"only": {"a": 1, "b": {"c": "x " * 90, "d": ["y " * 90, True]}, "e": "two\nlines\n" * 2}},
        {"only": {"inner": {"a": 1}}},
        {"yes": {1: "no", "a: b": "1e3"}, "null": 1.0, "é": 1, "f": "z " * 90},
        {"a b: c" * 40: {"x": 1, "y": 2}},
        {"x" * 200: {"x": 1, "y": 2}},
        {"a null b": {"x": 1, "y": 2}},
        {"null": {"x": 1, "y": 2}},
        {7: {"x": 1, "y": 2}},
        {"k": {"x" * 200: 1, "y": {"z": []}}},
    ],
)
def test_a_mapping_is_written_entry_by_entry_as_it_would_be_at_once(values: object) -> None:
    for dumper in (yaml.SafeDumper, yaml.CSafeDumper):
        at_once = yaml.dump(values, Dumper=dumper, sort_keys=False, allow_unicode=True)
        assert dump(values, dumper) == at_once
        assert dump(values, dumper) == at_once  # remembered
    assert dump({"a": 1}, yaml.SafeDumper) != dump({"a": True}, yaml.SafeDumper) != dump({"a": 1.0}, yaml.SafeDumper)
