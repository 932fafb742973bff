"""Adds what this machine comes to: `python -m tests.portability` (`make portability`).

Takes two minutes. `--elsewhere PROCESSOR TORCH FILE` adds the digests that `python -m tests.portability.trainings portable`
printed elsewhere: in an emulator, or with another PyTorch.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path

from torch.version import __version__ as own_torch

from era_cnn.processor import processor_name
from tests.portability.goldens import (
    Digests,
    compare,
    observation,
    read_outcomes,
    record,
    train_in_process,
    write_outcomes,
    write_readme,
)


def main() -> None:
    """Trains portably and not, compares, and records."""
    parser = argparse.ArgumentParser("python -m tests.portability", description=__doc__)
    parser.add_argument("--elsewhere", nargs=3, metavar=("PROCESSOR", "TORCH", "FILE"), help="digests from elsewhere")
    args = parser.parse_args()
    outcomes = read_outcomes()
    processor, torch, path = args.elsewhere or (processor_name(), own_torch, None)
    if path:
        found: dict[bool, Digests] = {True: json.loads(Path(path).read_text(encoding="utf-8"))}
        seen = {"processor": processor, "date": f"{date.today()}"}
    else:
        found = {portable: train_in_process(portable=portable) for portable in (True, False)}
        seen = observation(processor)
    for portable, digests in found.items():
        verdict = compare(outcomes, torch, processor, digests, portable=portable)
        print("portable:" if portable else "not portable:", verdict.text)
        record(outcomes, torch, {**seen, "trainings": len(digests)}, digests, portable=portable)
    write_outcomes(outcomes)
    write_readme(outcomes)


if __name__ == "__main__":
    main()
