"""The command that creates a project of one's own."""

from __future__ import annotations

from pathlib import Path

from era_cnn.output import say, shown
from era_cnn.paths import expanded
from era_cnn.verbs.line import Line, Parser, parsed


def new(line: Line) -> int:
    """Creates a project of your own: config groups, a block, a test, a Makefile and a CI file."""
    parser = Parser(line, new)
    parser.add_argument("folder", metavar="FOLDER", help="a new or empty folder; model and experiment get its name")
    args = parsed(parser, line, composes=False, uses_code=False)
    from era_cnn.use.project import create, is_local, requirement

    folder = Path(expanded(args.folder))
    written = create(folder)
    say(
        f"Project: {shown(folder)}",
        *(f"  {path}" for path in written),
        f"Next: cd {shown(folder)}; make check, make test, make train",
    )
    if is_local(requirement()):
        say("To install it elsewhere, as CI does: set ERA_CNN in the Makefile to git+ADDRESS of its repository.")
    return 0
