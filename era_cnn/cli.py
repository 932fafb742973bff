"""Runs a verb, or hands the command line to Hydra."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from era_cnn.errors import ConfigError, harmless, problem
from era_cnn.machine import keep_memory
from era_cnn.output import say, shown
from era_cnn.paths import current_folder, expanded
from era_cnn.terminal import Terminated, flushed, own_the_process, report

if TYPE_CHECKING:
    from era_cnn.compose.words import Words  # imports Hydra


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `era-cnn` or `python -m era_cnn`; returns the exit code.

    Args:
        argv: The words after `era-cnn`; None for those that this process was started with. Only with None does the
            command own the process: it then sets signal handlers and repairs the standard streams.

    Raises:
        SystemExit: If argparse ends the command, after a wrong flag or --help.
    """
    if argv is None:
        own_the_process()
    typed = sys.argv[1:] if argv is None else argv
    try:
        current_folder()  # fails at once if it was removed: hardly any command works there
        line = replace(_read(typed), owns_process=argv is None)
        if line.plugins:
            from era_cnn.config.choices import load_plugins  # and with it pydantic

            load_plugins(line.plugins)
        code = VERBS.get(line.verb, _train)(line)
    except (KeyboardInterrupt, Terminated, Exception) as error:
        if (reported := report(error)) is None:
            raise
        code = reported
    return flushed(code) if argv is None else code


@dataclass(frozen=True)
class Line:
    """A command line that was read."""

    typed: tuple[str, ...]
    verb: str
    """Empty for a run, for a sweep and for Hydra's own flags such as --help."""

    words: tuple[str, ...]
    """The words after the verb, without the options that may appear anywhere."""

    config_dir: str | None = None
    plugins: tuple[str, ...] = ()
    owns_process: bool = False
    """Whether this process was started for this command alone."""

    def prepare_to_compute(self) -> None:
        """Makes training faster by settings that last for the rest of the process."""
        if self.owns_process:
            keep_memory()

    @property
    def command(self) -> list[str]:
        """The whole command, for provenance.json."""
        return ["era-cnn", *self.typed]

    def composing(self, overrides: Sequence[str]) -> Words:
        """The words that compose a config from these overrides."""
        from era_cnn.compose.words import Words, parse_words

        words = Words.of(parse_words(list(overrides)), self.plugins)
        return words.in_folder(self.config_dir)


REPEATABLE = ("--plugin", "--baseline", "--where", "--tag")
"""The options that may be given more than once."""


def _read(typed: Sequence[str]) -> Line:
    """Separates the options that may appear before or after a verb from the rest of a command line.

    Raises:
        ConfigError: If an option has no value or is given twice, or its folder or file does not exist.
    """
    rest: list[str] = []
    config_dir, plugins = None, []
    given: set[str] = set()
    words = iter(typed)
    for word in words:
        option, has_value, value = word.partition("=")
        option = "--config-dir" if option == "-cd" else option
        if option in given:  # every parser behind this one takes the last one without a word
            raise ConfigError([f"{option} must be given once, got it twice. Remove one."])
        given |= {option} if option.startswith("--") and option not in REPEATABLE else set()
        if word == "--":
            rest += [word, *words]
        elif option not in ("--config-dir", "--plugin"):
            rest.append(word)
        elif not (value := value if has_value else next(words, "")):
            raise ConfigError([f"{option} must be followed by a path, got nothing. Give one, or leave {option} out."])
        elif option == "--plugin":
            plugins.append(_plugin(expanded(value)))
        else:
            config_dir = expanded(value)
    if config_dir is not None and not os.path.isdir(config_dir):
        raise ConfigError([problem("--config-dir", "be a folder", config_dir, "Create it.")])
    verb = rest.pop(0) if rest and rest[0] in VERBS else ""
    return Line(tuple(typed), verb, tuple(rest), config_dir, tuple(plugins))


def _plugin(path: str) -> str:
    """The absolute path of a plugin file."""
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise ConfigError([problem("--plugin", "be a file that can be read", path, "Check the path.")])
    return os.path.abspath(path)


def _train(line: Line) -> int:
    if "--version" in line.words:
        return _version()
    from era_cnn.compose.questions import answer, is_question
    from era_cnn.compose.words import Words, parse_words

    # Hydra's grammar decides whether this is a question, a sweep or a run.
    args = parse_words(line.words)
    words = Words.of(args, line.plugins).in_folder(line.config_dir)
    if is_question(args):
        return answer(words, args)
    from era_cnn.compose.composition import compose_typed, plan_run  # imports the schema

    # The config is composed once and validated once; only then is torch imported.
    composed, is_sweep = compose_typed(words, args)
    if is_sweep:
        from era_cnn.sweeps.commands import start as start_sweep

        return start_sweep(words, composed, line.typed)
    planned = plan_run(words, composed)
    line.prepare_to_compute()
    from era_cnn.runs.start import start

    return start(
        planned.config,
        Path(planned.folder),
        line.command,
        hydra_files=planned.hydra_files,
        verbose=planned.verbose_loggers(),
    )


def _version() -> int:
    from importlib.metadata import version

    import era_cnn

    say(f"era_cnn {era_cnn.__version__}, PyTorch {version('torch')}, Hydra {version('hydra-core')}")
    return 0


def _models(line: Line) -> int:
    parser = Parser("era-cnn models", description="Lists every experiment, with its size and target.")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of a table")
    help_ = "build every network, and print only where one can't be built or misses its target; for CI"
    parser.add_argument("--check", action="store_true", help=help_)
    args = _parsed(parser, line)
    from era_cnn.use.catalogue import catalogue, catalogue_table

    found = catalogue(line.composing([]), is_check=args.check)
    if args.json:
        say(*json.dumps([entry.to_json() for entry in found.entries], indent=2).split("\n"))
    elif not args.check:
        say(*catalogue_table(found.entries).split("\n"), *found.notes)
    if found.problems:
        raise ConfigError(found.problems)
    if args.check and not args.json:
        say(f"{len(found.entries)} experiments can be built, and none misses its target.", *found.notes)
    return 0


def _describe(line: Line) -> int:
    parser = Parser("era-cnn describe", description="Prints the layer table of a composed config.")
    parser.add_argument("overrides", nargs="*", help="overrides as for a run, such as experiment=model_3")
    args = _parsed(parser, line)
    from era_cnn.compose.composition import compose_run

    config = compose_run(line.composing(args.overrides))
    from era_cnn.use.catalogue import describe, describe_decay

    summary, misses = describe(config)
    say(*summary.table().splitlines(), *describe_decay(config))
    if misses:
        raise ConfigError(misses)
    return 0


def _data(line: Line) -> int:
    parser = Parser(
        "era-cnn data",
        description="Verifies a data set, after a download if needed, or checks a folder of images or a file.",
    )
    parser.add_argument("name", help="as data=NAME chooses it, such as mnist or image_folder")
    parser.add_argument("overrides", nargs="*", help="overrides, such as data.root=FOLDER")
    parser.add_argument("--verify", action="store_true", help="decode a folder again, and compare it with the cache")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    args = _parsed(parser, line)
    from era_cnn.compose.composition import compose_data

    section = compose_data(line.composing([f"data={args.name}", *args.overrides]))
    from era_cnn.use.data import examine

    report = examine(section, verify=args.verify)
    say(*(json.dumps(report.to_json(), indent=2).split("\n") if args.json else report.lines()))
    return 0 if report.is_sound else 3


def _resume(line: Line) -> int:
    parser = Parser("era-cnn resume", description="Continues a run or a sweep where it stopped.")
    parser.add_argument("path", metavar="RUN_OR_SWEEP", help="the folder of a run or sweep")
    help_ = "options of a sweep to change, such as hydra/launcher=local or sweep.retries=2"
    parser.add_argument("overrides", nargs="*", help=help_)
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is now, if it was moved")
    args = _parsed(parser, line)
    path = Path(expanded(args.path))
    from era_cnn.folders.run import is_sweep
    from era_cnn.folders.stored import run_folder

    if is_sweep(path):
        from era_cnn.sweeps.commands import resume as resume_sweep

        return resume_sweep(path, args.overrides, line.command, args.data_root, line.composing([]))
    if args.overrides:
        parser.error(f"a run's config must stay as it was, got {' '.join(args.overrides)}")
    folder = run_folder(path)
    line.prepare_to_compute()
    from era_cnn.runs.carry_out import carry_out

    return carry_out(folder, line.command, data_root=args.data_root)


def _replay(line: Line) -> int:
    parser = Parser(
        "era-cnn replay",
        description="Trains a run again from its folder alone, and reports whether the results match bit for bit.",
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a run; it is only read")
    parser.add_argument("--epochs", type=int, metavar="N", help="compare the first N epochs only")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is now, if it was moved")
    args = _parsed(parser, line)
    line.prepare_to_compute()
    from era_cnn.runs.replay import replay

    return replay(Path(args.run), line.command, epochs=args.epochs, data_root=args.data_root)


def _compare(line: Line) -> int:
    parser = Parser(
        "era-cnn compare",
        description="Prints tables of runs: a row for each run, and mean ± sd over the seeds of each setting.",
    )
    help_ = "the folder of a run or sweep, which may still be running, or one that contains such folders"
    parser.add_argument("paths", nargs="+", metavar="RUN_OR_SWEEP_OR_FOLDER", help=help_)
    parser.add_argument(
        "--format", choices=("table", "csv", "md", "json", "html"), default="table", help="of the output"
    )
    help_ = (
        "the setting that the others are compared with, such as optimizer.lr=0.01; repeatable. Default: the first one"
    )
    parser.add_argument("--baseline", action="append", default=[], metavar="KEY=VALUE", help=help_)
    args = _parsed(parser, line)
    from era_cnn.reports.compare import compare

    return compare([Path(expanded(path)) for path in args.paths], output_format=args.format, baseline=args.baseline)


def _list(line: Line) -> int:
    parser = Parser("era-cnn list", description="Lists the runs and sweeps in a folder, the jobs of a sweep, or a run.")
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="default: outputs and multirun in the current folder"
    )
    help_ = "list only what has this value of experiment, state, tag, or any key of a config or result; repeatable"
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=help_)
    help_ = "sort by such a key, or by when, best or final, so that the newest or highest is last"
    parser.add_argument("--sort", metavar="KEY", help=help_)
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of a table")
    args = _parsed(parser, line)
    from era_cnn.reports.listing import list_runs

    folder = None if args.folder is None else Path(expanded(args.folder))
    return list_runs(folder, where=args.where, sort=args.sort, as_json=args.json)


def _note(line: Line) -> int:
    parser = Parser("era-cnn note", description="Adds a note or tags to a run or a sweep, which may be running.")
    parser.add_argument("path", metavar="RUN_OR_SWEEP", help="the folder of a run or sweep; its notes.md is written")
    parser.add_argument("text", nargs="*", metavar="TEXT", help="the note; it gets the date")
    parser.add_argument("--tag", action="append", default=[], metavar="NAME", help="a word to find it by; repeatable")
    args = _parsed(parser, line)
    from era_cnn.folders.notes import add_note

    folder = Path(expanded(args.path)).absolute()
    notes = add_note(folder, " ".join(args.text), args.tag)
    say(f"Noted in {shown(folder) / 'notes.md'}." + (f" Tags: {', '.join(notes.tags)}" if notes.tags else ""))
    return 0


def _report(line: Line) -> int:
    parser = Parser("era-cnn report", description="Writes report.html, report.md and plots/ of runs and sweeps.")
    parser.add_argument("paths", nargs="+", metavar="RUN_OR_SWEEP", help="the folder of a run or sweep")
    args = _parsed(parser, line)
    from era_cnn.reports.report import write_reports

    return write_reports([Path(expanded(path)) for path in args.paths])


class Parser(argparse.ArgumentParser):
    """Parses the words after a verb; prints as everything else does."""

    def print_help(self, file: object = None) -> None:
        """Prints the help."""
        say(*self.format_help().splitlines())

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, and ends the command with code 2."""
        super().error(harmless(message))


def _parsed(parser: argparse.ArgumentParser, line: Line) -> argparse.Namespace:
    """Parses the words after a verb; the verb's help also lists the options that may appear anywhere."""
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder with your own config groups")
    parser.add_argument("--plugin", metavar="FILE", action="append", help="a file with your own code; repeatable")
    return parser.parse_intermixed_args(line.words)


VERBS: dict[str, Callable[[Line], int]] = {
    "models": _models,
    "describe": _describe,
    "data": _data,
    "resume": _resume,
    "replay": _replay,
    "report": _report,
    "compare": _compare,
    "list": _list,
    "note": _note,
}
