"""The command: words to verbs, and to Hydra what is no verb."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from era_cnn.errors import EraCnnError


def main() -> None:
    """`era-cnn`, and `python -m era_cnn`: ends the process with the exit code of what was asked for."""
    gc.set_threshold(100_000)  # not each 700 objects: importing makes half a million that stay
    _open_streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _stop)
    code = execute(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # closed, or full
        code = code or 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes, and fails, once more
    sys.exit(code)


def _open_streams() -> None:
    """Gives a command that was started without standard streams ones that nobody reads."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: else the next file, a pipe perhaps, would get its number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # for the workers of a sweep as well
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process


class Terminated(BaseException):
    """SIGTERM or one of Slurm's, raised where it came: nothing has begun that would have to be saved."""


_signals: list[int] = []
"""Those that came before a run had begun, or after it."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    _signals.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def execute(words: Sequence[str]) -> int:
    """Carries out a command line; returns its exit code."""
    verb = VERBS.get(words[0]) if words else None
    try:
        return verb(words[1:]) if verb else _hydra(words)
    except (KeyboardInterrupt, Terminated, Exception) as error:
        # A library that is interrupted may raise something else than what interrupted it.
        if _signals or not isinstance(error, Exception):
            by_hand = isinstance(error, KeyboardInterrupt) or _signals[-1:] == [signal.SIGINT]
            return _ended("Stopped.", 130) if by_hand else _ended("Terminated.", 143)
        if isinstance(error, EraCnnError):
            return _ended(str(error), error.exit_code)
        if isinstance(error, BrokenPipeError):
            return _ended("Standard output was closed.", 1)
        if isinstance(error, OSError):
            said = f"The command must be able to read and write, got: {error}. Look at the disk and the output."
            return _ended(said, 1)
        raise


def _ended(message: str, exit_code: int) -> int:
    with contextlib.suppress(OSError):  # whoever closed standard error still gets the code
        print(message, file=sys.stderr, flush=True)
    return exit_code


def _hydra(words: Sequence[str]) -> int:
    from era_cnn.compose.questions import answer, is_question
    from era_cnn.compose.words import Words, parse_words

    args = parse_words(words)
    asked = Words.of(args)
    if is_question(args):
        return answer(asked, words)
    from era_cnn.compose.planner import compose_typed  # and with it the schema

    composed, is_sweep = compose_typed(asked, args)
    if is_sweep:
        from era_cnn.sweeps.commands import start

        return start(asked, composed, words)
    from era_cnn.runs.launch import launch

    return launch(asked, composed, words)


def _models(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("era-cnn models", description="Every experiment, with its size and target.")
    parser.add_argument("--json", action="store_true", help="a list of objects, for machines")
    parser.add_argument("--config-dir", help="a folder with groups of your own, as Hydra takes it")
    args = parser.parse_args(words)
    from era_cnn.compose.words import Words, parse_words
    from era_cnn.use.catalogue import catalogue, catalogue_table

    config_dir = ["--config-dir", args.config_dir] if args.config_dir else []
    entries = catalogue(Words.of(parse_words(config_dir)))
    print(json.dumps([entry.to_json() for entry in entries], indent=2) if args.json else catalogue_table(entries))
    return 0


def _describe(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("era-cnn describe", description="The layer table of a composed config.")
    parser.add_argument("overrides", nargs="*", help="as for a run, such as experiment=model_3")
    parser.add_argument("--config-dir", "-cd", help="a folder with groups of your own, as Hydra takes it")
    args = parser.parse_args(words)
    from era_cnn.compose.planner import compose, validated
    from era_cnn.compose.words import Words, parse_words

    config_dir = ["--config-dir", args.config_dir] if args.config_dir else []
    config = validated(compose(Words.of(parse_words([*args.overrides, *config_dir]))))
    from era_cnn.use.catalogue import describe

    print(describe(config).table(), end="")
    return 0


def _data(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("era-cnn data", description="Fetches and verifies a data set.")
    parser.add_argument("name", help="mnist, fashion_mnist, kmnist or digits")
    parser.add_argument("overrides", nargs="*", help="such as data.root=FOLDER")
    args = parser.parse_args(words)
    from era_cnn.compose.planner import compose, validated
    from era_cnn.compose.words import Words

    config = validated(compose(Words([f"data={args.name}", *args.overrides])))
    from era_cnn.runs.parts import read_data

    dataset = read_data(config)
    sizes = f"{len(dataset.train_labels):,} training and {len(dataset.test_labels):,} test images"
    print(f"{config.data.name}: {sizes}, verified, SHA-256 {dataset.sha256}")
    return 0


def _resume(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("era-cnn resume", description="Goes on with a run or a sweep where it stopped.")
    parser.add_argument("path", metavar="RUN_OR_SWEEP", help="its folder")
    help_ = "of a sweep: how its jobs are done from now on, such as hydra/launcher=local or sweep.retries=2"
    parser.add_argument("overrides", nargs="*", help=help_)
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data lie by now, if not where they lay")
    args = parser.parse_args(words)
    command, path = ["era-cnn", "resume", *words], Path(args.path)
    from era_cnn.folders.stored import is_sweep

    if is_sweep(path):
        from era_cnn.sweeps.commands import resume as resume_sweep

        return resume_sweep(path, args.overrides, command, args.data_root)
    if args.overrides:
        parser.error(f"a run's config must stay as it was, got {' '.join(args.overrides)}")
    from era_cnn.runs.resume import resume

    return resume(path, command, args.data_root)


def _replay(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "era-cnn replay", description="Trains again from a run's folder alone, and says whether the bits are the same."
    )
    parser.add_argument("run", metavar="RUN", help="its folder; it is only read")
    parser.add_argument("--epochs", type=int, metavar="N", help="compare the first N epochs only")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data lie by now, if not where they lay")
    args = parser.parse_args(words)
    from era_cnn.runs.replay import replay

    return replay(Path(args.run), ["era-cnn", "replay", *words], epochs=args.epochs, data_root=args.data_root)


def _compare(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "era-cnn compare", description="Tables over runs: each of them, and mean ± sd over the seeds of each setting."
    )
    parser.add_argument("paths", nargs="+", metavar="RUN_OR_SWEEP", help="its folder; a sweep may still be under way")
    args = parser.parse_args(words)
    from era_cnn.reports.compare import compare

    return compare([Path(path) for path in args.paths])


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "models": _models,
    "describe": _describe,
    "data": _data,
    "resume": _resume,
    "replay": _replay,
    "compare": _compare,
}
