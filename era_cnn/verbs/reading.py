"""The commands that read folders: compare, list, note, report."""

from __future__ import annotations

import shlex
from pathlib import Path

from era_cnn.output import say, shown
from era_cnn.paths import expanded, typed_path
from era_cnn.verbs.line import Line, Parser, parsed


def compare(line: Line) -> int:
    """Prints tables of runs: a row for each run, and mean ± sd over the seeds of each setting."""
    parser = Parser(line, compare)
    help_ = "the folder of a run or sweep, which may still be running, or one that contains such folders"
    parser.add_argument("paths", nargs="+", metavar="RUN_OR_SWEEP_OR_FOLDER", help=help_)
    parser.add_argument(
        "--format", choices=("table", "csv", "md", "json", "html"), default="table", help="of the output"
    )
    help_ = (
        "the setting that the others are compared with, such as optimizer.lr=0.01; repeatable. Default: the first one"
    )
    parser.add_argument("--baseline", action="append", default=[], metavar="KEY=VALUE", help=help_)
    args = parsed(parser, line, composes=False)
    from era_cnn.reports.compare import compare as compare_runs

    return compare_runs(
        [Path(expanded(path)) for path in args.paths], output_format=args.format, baseline=args.baseline
    )


def list_(line: Line) -> int:
    """Lists the runs and sweeps in a folder, the jobs of a sweep, or a run."""
    parser = Parser(line, list_)
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="default: outputs and multirun in the current folder"
    )
    help_ = "list only what has this value of experiment, state, tag, or any key of a config or result; repeatable"
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=help_)
    help_ = "sort by such a key, or by when, best or final, so that the newest or highest is last"
    parser.add_argument("--sort", metavar="KEY", help=help_)
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of a table")
    args = parsed(parser, line, composes=False)
    from era_cnn.reports.listing import list_runs

    folder = None if args.folder is None else Path(expanded(args.folder))
    return list_runs(folder, where=args.where, sort=args.sort, as_json=args.json)


def note(line: Line) -> int:
    """Adds a note or tags to a run or a sweep, which may be running."""
    parser = Parser(line, note)
    parser.add_argument("path", metavar="RUN_OR_SWEEP", help="the folder of a run or sweep; its notes.md is written")
    parser.add_argument("text", nargs="*", default=[], metavar="TEXT", help="the note; it gets the date")
    parser.add_argument("--tag", action="append", default=[], metavar="NAME", help="a word to find it by; repeatable")
    args = parsed(parser, line, composes=False, uses_code=False)
    from era_cnn.folders.notes import add_note
    from era_cnn.folders.run import reports_about

    folder = Path(expanded(args.path)).absolute()
    notes = add_note(folder, " ".join(args.text), args.tag)
    say(f"Noted in {shown(folder) / 'notes.md'}." + (f" Tags: {', '.join(notes.tags)}" if notes.tags else ""))
    if written := reports_about(folder):
        places = " ".join(shlex.quote(str(shown(each))) for each in written)
        say(f"To show it in the report: era-cnn report {places}")
    return 0


def report(line: Line) -> int:
    """Writes report.html, report.md and plots/ of runs and sweeps; of several, also a page with all side by side."""
    parser = Parser(line, report)
    parser.add_argument("paths", nargs="+", metavar="RUN_OR_SWEEP", help="the folder of a run or sweep")
    help_ = "of several: a new folder for the page that shows them side by side; default: reports/<date>/<time>"
    parser.add_argument("--to", metavar="FOLDER", help=help_)
    args = parsed(parser, line, composes=False)
    from era_cnn.reports.report import write_reports

    to = None if args.to is None else Path(typed_path("--to", args.to))
    return write_reports([Path(expanded(path)) for path in args.paths], to)
