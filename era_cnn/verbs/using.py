"""The commands that use a trained network: eval, predict, explain, export."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from era_cnn.errors import ConfigError, problem
from era_cnn.output import say, shown
from era_cnn.paths import expanded, typed_path
from era_cnn.portable import prefer_arithmetic
from era_cnn.verbs.line import Line, Parser, parsed, refuse_config_dir


def eval_(line: Line) -> int:
    """Evaluates the network of a run on every image of a split; the run is only read."""
    parser = Parser(line, eval_)
    _add_run(parser)
    parser.add_argument("overrides", nargs="*", default=[], help="overrides of --data, such as data.root=FOLDER")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="default: test")
    help_ = "another data set with images of the same shape in as many classes, as data=NAME chooses it"
    parser.add_argument("--data", metavar="NAME", help=help_)
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data of the run is now, if it was moved")
    help_ = "also average over shifts by one pixel, and over the flips that the run was trained with"
    parser.add_argument("--tta", action="store_true", help=help_)
    help_ = "a new folder for predictions.csv and predictions.npz, an entry for each image"
    parser.add_argument("--to", metavar="FOLDER", help=help_)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    args = parsed(parser, line)
    _check_overrides(args.overrides, args.data)
    if args.data is None:
        refuse_config_dir(line, "--data", "none")
    to = None if args.to is None else Path(typed_path("--to", args.to))
    _prepare(line, args.run)
    from era_cnn.use.evaluate import evaluate
    from era_cnn.use.network import Run

    run = Run(expanded(args.run))
    section = None
    if args.data is not None:
        from era_cnn.compose.composition import compose_data

        section = compose_data(line.composing([f"data={args.data}", *args.overrides]))
    options = {"checkpoint": args.checkpoint, "tta": args.tta, "data_root": args.data_root}
    found = evaluate(run, args.split, data=section, **options)
    say(*(json.dumps(found.to_json(), indent=2).split("\n") if args.json else found.lines()))
    if to is not None:
        written = found.write(to)
        say(*([] if args.json else [f"Predictions: {shown(written)}"]))
    return 0


def predict(line: Line) -> int:
    """Predicts the classes of pictures: photos and scans are prepared as the images of the run's data set were."""
    parser = Parser(line, predict)
    _add_run(parser)
    _add_images(parser)
    parser.add_argument("--top", type=int, metavar="N", help="print the N most probable classes; default: 3")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    formats.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    parser.add_argument("--save", metavar="FOLDER", help="a new folder for what the network saw, as PNG")
    args = parsed(parser, line, composes=False)
    _prepare(line, args.run)
    from era_cnn.use.network import Run
    from era_cnn.use.predict import predict_files

    return predict_files(
        Run(expanded(args.run)),
        [Path(expanded(path)) for path in args.images],
        checkpoint=args.checkpoint,
        top=args.top,
        output_format="csv" if args.csv else "json" if args.json else "table",
        save=None if args.save is None else typed_path("--save", args.save),
    )


def explain(line: Line) -> int:
    """Shows what in a picture speaks for a class (Grad-CAM), as a PNG for each picture."""
    parser = Parser(line, explain)
    _add_run(parser)
    _add_images(parser)
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="the class; default: the predicted one")
    parser.add_argument("--to", metavar="FOLDER", help="a new folder; default: explained/<date>/<time>_<experiment>")
    args = parsed(parser, line, composes=False)
    _prepare(line, args.run)
    from era_cnn.use.explain import explain_files
    from era_cnn.use.network import Run

    return explain_files(
        Run(expanded(args.run)),
        [Path(expanded(path)) for path in args.images],
        checkpoint=args.checkpoint,
        class_name=args.class_name,
        to=None if args.to is None else typed_path("--to", args.to),
    )


def export(line: Line) -> int:
    """Writes a trained network as ONNX and as a torch.export program, verified on the test set."""
    parser = Parser(line, export)
    _add_run(parser)
    help_ = "the folder to create; default: exports/ and the name of the run's folder"
    parser.add_argument("--to", metavar="FOLDER", help=help_)
    help_ = "only one of the two; onnx needs pip install 'era_cnn[export]'"
    parser.add_argument("--format", choices=("onnx", "torch"), help=help_)
    parser.add_argument("--opset", type=int, metavar="N", help="the version of ONNX's operators, 18 to 23; default: 20")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is now, if it was moved")
    args = parsed(parser, line, composes=False)
    to = None if args.to is None else typed_path("--to", args.to)
    _prepare(line, args.run)
    from era_cnn.use.network import Run

    done = Run(expanded(args.run)).export(
        to,
        checkpoint=args.checkpoint,
        formats=(args.format,) if args.format else ("onnx", "torch"),
        opset=args.opset,
        data_root=args.data_root,
    )
    for name, each in done.verified.items():
        changed = f"{each.num_changed:,} predictions changed, logits differ by up to {each.max_difference:.1e}"
        say(f"{name}: {100 * each.accuracy:.2f}% of {each.num_images:,} test images; {changed}")
    say(f"Export folder: {shown(done.path)}")
    return 0


def _prepare(line: Line, run: str) -> None:
    """Computes as the run did: portably or not."""
    from era_cnn.folders.stored import is_portable, run_folder

    prefer_arithmetic(is_portable(run_folder(Path(expanded(run)))))
    line.prepare_to_compute()


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run; it is only read")
    help_ = "the weights: of the last epoch (default), of the best one, or averaged (trainer.ema_decay)"
    parser.add_argument("--checkpoint", choices=("last", "best", "ema"), default="last", help=help_)


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file, or a folder with image files")


def _check_overrides(overrides: list[str], data: str | None) -> None:
    """Raises a `ConfigError` for overrides that would have no effect."""
    if overrides and data is None:
        raise ConfigError([problem("Overrides", "go with --data", " ".join(overrides), "Add --data NAME.")])
    for each in overrides:
        if not each.lstrip("+~").startswith("data."):
            rule = "be an override of the data set, such as data.root=FOLDER"
            raise ConfigError([problem(each, rule, each, "Remove it: the rest of the config is that of the run.")])
