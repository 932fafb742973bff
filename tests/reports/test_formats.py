from __future__ import annotations

import csv
import io
import random
import re

import pytest

from era_cnn.reports.formats import aligned, csv_text, markdown, markdown_table

HOSTILE = [
    "a|b", "`code`", "<script>alert(1)</script>", "[text](https://x.example)", "![](http://x.example/pixel.png)",
    "https://x.example", "www.x.example", "two\nlines", "\rback", "\ttab", "\x1b[31mred", "\u202eleft", "**bold**",
    "_soft_", "~~gone~~", "&lt;", "\\|", "$x$", "=HYPERLINK(\"http://x\")", "+1+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)",
    " =1", "＝1", "\udcff", "\u2028", "'", '"', ",", ";", "# title", "日本語",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    cell = markdown(text)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", cell)  # a backslash takes the meaning of the character behind it
    assert not re.search(r"[`*<>\[\]|~$\\]|://|www\.", bare, re.IGNORECASE)
    assert "&" not in re.sub("&(amp|lt|gt);", "", cell)
    assert cell.isprintable()


@pytest.mark.parametrize("text", ["model_3_plain", "0.01", "-0.5", "outputs/2026-11-26/11-31-06_model_3", "got nan."])
def test_markdown_leaves_plain_text_alone(text: str) -> None:
    assert markdown(text) == text


@pytest.mark.parametrize("number", range(50))
def test_hostile_text_makes_no_more_cells_or_lines(number: int) -> None:
    pick = random.Random(number)
    lines = [["".join(pick.choices(HOSTILE, k=3)) for _ in range(4)] for _ in range(3)]
    table = lines[0], lines[1:]
    page = markdown_table(table).split("\n")
    assert [len(re.sub(r"\\.", "", line).split("|")) for line in page] == [6] * 4
    assert [line.isprintable() for line in aligned(table).split("\n")] == [True] * 4
    text = csv_text(*table)
    rows = list(csv.reader(io.StringIO(text)))
    assert [len(row) for row in rows] == [4] * 3
    assert all(line.isprintable() for line in text.splitlines())
    assert not any(re.match(r"\s*[=+\-@＝]", cell) for row in rows for cell in row)


@pytest.mark.parametrize("text", ["-0.5", "+1", "-1e-3", "-.5", "-1.", "0.5", "-0"])
def test_a_number_stays_a_number_in_csv(text: str) -> None:
    assert csv_text(["x"], [[text]]) == f"x\n{text}\n"


@pytest.mark.parametrize("text", ["-1+2", "--1", "-1_0", "-x", "+", "-inf", "-0x10", "- 1", "-1;2"])
def test_what_only_begins_like_a_number_is_text_in_csv(text: str) -> None:
    assert csv_text(["x"], [[text]]) == f"x\n'{text}\n"


def test_values_that_are_no_text_keep_their_type_in_csv() -> None:
    assert csv_text(["x", "y", "z"], [[-0.5, None, 3]]) == "x,y,z\n-0.5,,3\n"


def test_wide_and_combining_characters_keep_columns_aligned() -> None:
    lines = aligned((["name", "n"], [["日本", "1"], ["u\u0308ber", "2"], ["plain", "3"]])).split("\n")
    assert lines == ["name   n", "-----  -", "日本   1", "u\u0308ber   2", "plain  3"]
