"""Runs a verb, or hands the command line to Hydra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from era_cnn.errors import ClosedOutputError
from era_cnn.output import complain
from era_cnn.paths import current_folder
from era_cnn.portable import TooLateError, are_made, start_again
from era_cnn.terminal import Terminated, flushed, own_the_process, report
from era_cnn.verbs import creating, looking, reading, recording, training, using
from era_cnn.verbs.line import Line, read_line

VERBS: dict[str, Callable[[Line], int]] = {
    "models": looking.models,
    "describe": looking.describe,
    "data": looking.data,
    "resume": training.resume,
    "replay": training.replay,
    "eval": using.eval_,
    "predict": using.predict,
    "explain": using.explain,
    "export": using.export,
    "find-lr": training.find_lr,
    "report": reading.report,
    "compare": reading.compare,
    "list": reading.list_,
    "note": reading.note,
    "record": recording.record,
    "new": creating.new,
}

QUESTIONS = {"models", "describe", "data", "list", "compare", "--help", "--version"}
"""The words that only ask: that their answer is not read to its end is no failure to speak of."""

WITHOUT_PLUGINS = {"note", "new", "--version", "--shell-completion", "-sc"}
"""The words that look at no installed plugin, or whose answer a shell reads."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `era-cnn` or `python -m era_cnn`; returns the exit code.

    Args:
        argv: The words after `era-cnn`; None for those that this process was started with. Only with None does the
            command own the process: it then sets signal handlers and repairs the standard streams.

    Raises:
        SystemExit: If argparse ends the command, after --help.
    """
    if argv is None:
        own_the_process()
    typed = sys.argv[1:] if argv is None else argv
    try:
        current_folder()  # fails at once if it was removed: hardly any command works there
        line = replace(read_line(typed, VERBS), owns_process=argv is None)
        if line.plugins:
            from era_cnn.config.choices import load_plugins  # and with it pydantic

            load_plugins(line.plugins)
        if not {line.verb, *line.words} & WITHOUT_PLUGINS:
            from era_cnn.config.plugins import faults

            for fault in faults():
                complain(fault)
        code = VERBS.get(line.verb, training.train)(line)
    except (KeyboardInterrupt, Terminated, Exception) as error:
        if argv is None and isinstance(error, TooLateError) and not are_made():  # a plugin has imported torch
            start_again()
        if isinstance(error, ClosedOutputError) and set(typed[:1]) & QUESTIONS:  # `era-cnn describe | head`
            code = error.exit_code
        elif (reported := report(error)) is None:
            raise
        else:
            code = reported
    return flushed(code) if argv is None else code
