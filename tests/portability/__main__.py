"""Adds what this machine comes to: `python -m tests.portability` (`make portability`).

Takes two minutes. `--processor NAME FILE` adds the digests that `python -m tests.portability.trainings portable` printed
elsewhere, such as in an emulator.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from torch.version import __version__ as torch

from tests.portability.goldens import (
    Digests,
    compare,
    observation,
    read_outcomes,
    record,
    this_processor,
    train_in_process,
    write_outcomes,
    write_readme,
)


def main() -> None:
    """Trains portably and not, compares, and records."""
    parser = argparse.ArgumentParser("python -m tests.portability", description=__doc__)
    parser.add_argument("--processor", nargs=2, metavar=("NAME", "FILE"), help="portable digests from elsewhere")
    args = parser.parse_args()
    outcomes = read_outcomes()
    if args.processor:
        found: dict[bool, Digests] = {True: json.loads(Path(args.processor[1]).read_text(encoding="utf-8"))}
    else:
        found = {portable: train_in_process(portable=portable) for portable in (True, False)}
    processor = args.processor[0] if args.processor else this_processor()
    for portable, digests in found.items():
        verdict = compare(outcomes, torch, processor, digests, portable=portable)
        print("portable:" if portable else "not portable:", verdict.text)
        seen = {**observation(processor), "trainings": len(digests)}
        record(outcomes, torch, seen, digests, portable=portable)
    write_outcomes(outcomes)
    write_readme(outcomes)


if __name__ == "__main__":
    main()
