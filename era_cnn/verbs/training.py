"""The commands that train: a run, a sweep, resume, replay and find-lr. And the answers of Hydra's own flags."""

from __future__ import annotations

from pathlib import Path

from era_cnn.output import complain, say
from era_cnn.paths import expanded
from era_cnn.verbs.line import Line, Parser, parsed, refuse_config_dir


def train(line: Line) -> int:
    """Trains a run or a sweep, or answers a question that is Hydra's."""
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
    line.prepare_to_compute(portable=planned.config.portable)
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


def find_lr(line: Line) -> int:
    """Trains with a rising learning rate, and suggests one for a config."""
    parser = Parser(line, find_lr)
    parser.add_argument("overrides", nargs="*", default=[], help="overrides as for a run, such as experiment=model_3")
    parser.add_argument("--start", type=float, default=1e-5, metavar="LR", help="the first learning rate; default 1e-5")
    parser.add_argument("--end", type=float, default=10.0, metavar="LR", help="the last one; default 10")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="the number of updates; default 200")
    help_ = "the number of tests, each with its own seed; default 1"
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help=help_)
    args = parsed(parser, line)
    from era_cnn.compose.composition import compose_lr_test

    config = compose_lr_test(line.composing(args.overrides))
    line.prepare_to_compute(portable=config.portable)
    from era_cnn.runs.find_lr import find_lr as find

    test = find(config, line.command, start=args.start, end=args.end, steps=args.steps, seeds=args.seeds, say=say)
    say(*test.lines())
    if test.problem:
        complain(test.problem)
    return 1 if test.problem else 0


def resume(line: Line) -> int:
    """Continues a run or a sweep where it stopped."""
    parser = Parser(line, resume)
    parser.add_argument("path", metavar="RUN_OR_SWEEP", help="the folder of a run or sweep")
    help_ = "options of a sweep to change, such as hydra/launcher=local or sweep.retries=2"
    parser.add_argument("overrides", nargs="*", default=[], help=help_)
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is now, if it was moved")
    args = parsed(parser, line)
    path = Path(expanded(args.path))
    from era_cnn.folders.run import is_sweep
    from era_cnn.folders.stored import is_portable, run_folder

    if is_sweep(path):
        from era_cnn.sweeps.commands import resume as resume_sweep

        return resume_sweep(path, args.overrides, line.command, args.data_root, line.composing([]))
    if args.overrides:
        parser.error(f"a run's config must stay as it was, got {' '.join(args.overrides)}")
    refuse_config_dir(line, "a sweep", "a run, which has its config")
    folder = run_folder(path)
    line.prepare_to_compute(portable=is_portable(folder))
    from era_cnn.runs.carry_out import carry_out

    return carry_out(folder, line.command, data_root=args.data_root)


def replay(line: Line) -> int:
    """Trains a run again from its folder alone, and reports whether the results match bit for bit."""
    parser = Parser(line, replay)
    parser.add_argument("run", metavar="RUN", help="the folder of a run; it is only read")
    parser.add_argument("--epochs", type=int, metavar="N", help="compare the first N epochs only")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is now, if it was moved")
    args = parsed(parser, line, composes=False)
    from era_cnn.folders.stored import is_portable, run_folder

    line.prepare_to_compute(portable=is_portable(run_folder(Path(args.run))))
    from era_cnn.runs.replay import replay as replay_run

    return replay_run(Path(args.run), line.command, epochs=args.epochs, data_root=args.data_root)
