"""The command that keeps evidence: record."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from era_cnn.errors import ConfigError, EraCnnError
from era_cnn.output import complain, say, shown
from era_cnn.paths import expanded, typed_path
from era_cnn.portable import TooLateError
from era_cnn.verbs.line import Line, Parser, parsed

if TYPE_CHECKING:
    from era_cnn.config.schema import RunConfig
    from era_cnn.folders.record import Record
    from era_cnn.reports.collecting import Compose


def record(line: Line) -> int:
    """Records completed runs of one setting as evidence, with their page; checks and repeats records."""
    parser = Parser(line, record)
    help_ = "the folder of a run or sweep; with --update, --check and --repeat: a record, or a folder of records"
    parser.add_argument("paths", nargs="+", metavar="RUN_OR_SWEEP", help=help_)
    modes = parser.add_mutually_exclusive_group(required=True)
    help_ = "the folder of the record, such as experiments/model_4; runs are added to a record that is there"
    modes.add_argument("--to", metavar="FOLDER", help=help_)
    help_ = "write the generated parts again, also of Markdown pages that are named"
    modes.add_argument("--update", action="store_true", help=help_)
    help_ = "write nothing; exit with code 1 if a generated part is not current"
    modes.add_argument("--check", action="store_true", help=help_)
    help_ = "train the first epoch of a seed of each record again, and compare"
    modes.add_argument("--repeat", action="store_true", help=help_)
    args = parsed(parser, line)
    from era_cnn.reports import evidence
    from era_cnn.reports.record_places import places_of, refuse_place

    paths = [Path(expanded(path)) for path in args.paths]
    if args.to is not None:
        return evidence.record_runs(paths, Path(typed_path("--to", args.to)), _composer(line))
    if args.repeat:
        places = places_of(paths)
        if places.pages:
            refuse_place(*places.pages)
        return _repeat(places.records, line)
    return (evidence.update if args.update else evidence.check)(paths, _composer(line))


def _composer(line: Line) -> Compose:
    """Composes the config of the runs of a record with the config folder and the plugins of the command line."""
    from era_cnn.compose.composition import compose_run
    from era_cnn.folders.record import CONFIG_DIR, PLUGIN, own_files
    from era_cnn.reports.collecting import is_of

    def compose(record: Record) -> RunConfig:
        needed = record.own_files
        lacking = [] if line.config_dir else own_files(needed, CONFIG_DIR)
        lacking += [] if line.plugins else own_files(needed, PLUGIN)
        try:
            config = compose_run(line.composing(record.overrides))
        except ConfigError as error:
            if lacking:
                raise _lacks(lacking) from error
            raise
        if lacking and not is_of(record, config):
            raise _lacks(lacking)
        return config

    return compose


def _lacks(words: Sequence[str]) -> EraCnnError:
    from era_cnn.reports.collecting import LacksFilesError

    rule = "be composed with the files that its runs used, got a command without them"
    return LacksFilesError(f"A record must {rule}. Give {shlex.join(words)}.")


def _repeat(folders: Sequence[Path], line: Line) -> int:
    """Repeats each record, also if one before it differs; returns the highest exit code. A signal stops all of them.

    Raises:
        TooLateError: If a plugin has imported torch for another arithmetic than the first record wants.
    """
    from era_cnn.folders.record import read_record

    if not folders:
        say("No records yet, so nothing to repeat.")
    codes = [0]
    for folder in folders:
        try:
            line.prepare_to_compute(portable=read_record(folder).portable)
            from era_cnn.runs.repeat import repeat  # imports torch

            if (code := repeat(folder, _composer(line), line.command)) != 0:
                return code
        except EraCnnError as error:
            if isinstance(error, TooLateError) and folder == folders[0]:
                raise  # the command starts again
            complain(f"{shown(folder)}: {error}")
            codes.append(error.exit_code)
    return max(codes)
