"""The commands that use a trained network: export."""

from __future__ import annotations

from era_cnn.output import say, shown
from era_cnn.paths import expanded, typed_path
from era_cnn.verbs.line import Line, Parser, parsed


def export(line: Line) -> int:
    """Writes a trained network as ONNX and as a torch.export program, verified on the test set."""
    parser = Parser(line, export)
    parser.add_argument("path", metavar="RUN", help="the folder of a run; it is only read")
    help_ = "the folder to create; default: exports/ and the name of the run's folder"
    parser.add_argument("--to", metavar="FOLDER", help=help_)
    help_ = "which weights: last (default), best, or ema, the averaged ones"
    parser.add_argument("--checkpoint", choices=("last", "best", "ema"), default="last", help=help_)
    help_ = "only one of the two; onnx needs pip install 'era_cnn[export]'"
    parser.add_argument("--format", choices=("onnx", "torch"), help=help_)
    parser.add_argument("--opset", type=int, metavar="N", help="the version of ONNX's operators, 18 to 23; default: 20")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is now, if it was moved")
    args = parsed(parser, line)
    to = None if args.to is None else typed_path("--to", args.to)
    from era_cnn.use.network import Run

    done = Run(expanded(args.path)).export(
        to,
        checkpoint=args.checkpoint,
        formats=(args.format,) if args.format else ("onnx", "torch"),
        opset=args.opset,
        data_root=args.data_root,
    )
    for name, each in done.verified.items():
        changed = f"{each.num_changed:,} predictions changed, logits differ by up to {each.max_difference:.1e}"
        say(f"{name}: {100 * each.accuracy:.2f} % of {each.num_images:,} test images; {changed}")
    say(f"Export folder: {shown(done.path)}")
    return 0
