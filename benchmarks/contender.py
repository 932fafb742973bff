"""What every contender has: its options, and rounds on demand.

A contender is a process of its own, so that none lives in the settings or the memory of another. It prepares itself,
says so, trains as many images as a round has whenever a line comes in, and answers with the seconds that this took.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="model_3")
    parser.add_argument("--data", required=True, help="the folder of the data sets")
    parser.add_argument("--images", type=int, required=True, help="in a round")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--width", type=int, default=1, help="the factor on all channels")
    parser.add_argument("--compile", action="store_true", help="through PyTorch's compiler")
    return parser.parse_args()


def serve(round_: Callable[[], float]) -> None:
    """Answers every line of standard input with the seconds of a round, after one that is not counted."""
    round_()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(round_(), flush=True)
