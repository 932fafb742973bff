"""Turns what argparse says of wrong words into messages of the form in `era_cnn.errors`."""

from __future__ import annotations

import re

_FORMS = {
    r"the following arguments are required: (?P<key>.+)": "must be given, got nothing",
    r"unrecognized arguments: (?P<key>-.+)": "must be an option of the command, got an unknown one",
    r"unrecognized arguments: (?P<key>.+)": "must be left out, got more than the command takes",
    r"argument (?P<key>.+): invalid int value: (?P<got>.+)": "must be a whole number, got {got}",
    r"argument (?P<key>.+): invalid float value: (?P<got>.+)": "must be a number, got {got}",
    r"argument (?P<key>.+): expected one argument": "must be followed by a value, got nothing",
    r"argument (?P<key>.+): invalid choice: (?P<got>.+) \(choose from (?P<known>.+)\)": (
        "must be one of {known}, got {got}"
    ),
    r"argument (?P<key>.+): ignored explicit argument (?P<got>.+)": "must be given without a value, got {got}",
    r"argument (?P<key>.+): not allowed with argument (?P<other>.+)": "must be used without {other}, got both",
}
"""The messages of argparse, and what is said instead."""


def refusal(message: str, command: str) -> str:
    """The message about a wrong command line; a message that is not known is quoted.

    Args:
        message: What argparse says.
        command: The command, such as `era-cnn list`.
    """
    advice = f"See {command} --help."
    for pattern, form in _FORMS.items():
        if found := re.fullmatch(pattern, message):
            parts = found.groupdict()
            if "known" in parts:
                parts["known"] = parts["known"].replace("'", "")  # quoted up to Python 3.11
            return f"{parts['key']} {form.format(**parts)}. {advice}"
    return f"{command} must be written as its help says, got: {message}. {advice}"
