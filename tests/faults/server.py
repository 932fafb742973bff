"""Runs campaigns for a process that can't: one that has computed must not be forked, and importing takes seconds.

Reads a line `[name, arguments, options]` of JSON from standard input for each, and answers with a line.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict

from tests.faults import campaigns, hostile, sweeps
from tests.faults.harness import RUN, Report
from tests.process import preload


def main() -> None:
    """Answers until standard input ends; each campaign has a process of its own."""
    preload(*RUN, fork_workers=True)
    for line in sys.stdin:
        name, arguments, options = json.loads(line)
        if name in ("crash_points", "disk_failures"):
            campaigns.undisturbed()  # here, so that all of them have it
        if os.fork() == 0:
            try:
                report = {**vars(campaigns), **vars(sweeps), **vars(hostile)}[name](*arguments, **options)
            except BaseException:  # noqa: BLE001 - or who asked would wait forever
                report = Report(failures=[traceback.format_exc()])
            print(json.dumps(asdict(report)), flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
