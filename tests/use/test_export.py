"""What is exported gives the network's logits, for any number of images, without era_cnn."""

from __future__ import annotations

import json
import math
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import era_cnn
from era_cnn.data.batches import Normalise, Split
from era_cnn.data.digits import read_digits
from era_cnn.errors import ConfigError, ExportError
from era_cnn.folders.storage import files_sha256
from era_cnn.models.build import build_from_config
from era_cnn.use import export as module
from era_cnn.use import formats
from era_cnn.use.export import verify
from era_cnn.use.formats import FORMATS, attempt, trace
from tests.conftest import EXPERIMENTS, config_of
from tests.data.folders import TWO_SPLITS, make_folder
from tests.helpers import GREY, needs
from tests.models.test_blocks import EXAMPLES, build_one

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytestmark = [needs(package, "export") for package in ("onnxruntime", "onnxscript")]

PLAIN = Normalise([0.5], [0.25])


@pytest.fixture(autouse=True, scope="module")
def _operators_listed_once() -> Iterator[None]:
    """PyTorch lists all operators of ONNX for each export, which takes half a second. No test changes the list."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib))):
        yield


def make_images(info: era_cnn.DataInfo) -> torch.Tensor:
    """Images of large bright and dark areas: noise would look the same to every network."""
    numbers = torch.Generator().manual_seed(0)
    coarse = torch.rand(25, info.shape[0], 4, 4, generator=numbers) * torch.linspace(0.2, 1, 25).view(-1, 1, 1, 1)
    return (255 * nn.functional.interpolate(coarse, info.shape[1:])).to(torch.uint8)


@torch.no_grad()
def take_moments(network: nn.Module, images: torch.Tensor) -> None:
    """Sets the moments of batch norm to those of some images."""
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = 1.0
    network.train()(images)
    network.eval()


def check_both(network: nn.Module, normalise: Normalise, info: era_cnn.DataInfo, folder: Path) -> None:
    """Exports a network to all formats; runs each file on 1, 2, 7 and 13 images; looks into the files."""
    images = make_images(info)
    take_moments(network, normalise(images))
    with torch.no_grad():
        logits = network(normalise(images)).numpy()
    assert np.ptp(logits, axis=0).max() > 0.01 * np.abs(logits).max(), (
        "all images have the same logits: nothing would be compared"
    )
    program = trace(network, normalise, info)
    test = Split(images, torch.zeros(25, dtype=torch.int64))
    with patch("torch.export.load", cache(torch.export.load)):  # once, to run it and to look into it
        for each in FORMATS.values():
            path = folder / each.file
            path.write_bytes(attempt(each.file, each.content, program, 20))
            found = verify(path, each, test, logits, large=13)
            assert found.max_difference <= 1e-4 * max(1, np.abs(logits).max())
            assert os.fsencode(Path(era_cnn.__file__).parent) not in path.read_bytes(), "the path of this machine"
        look_into_onnx(folder / "model.onnx", info, num_logits=logits.shape[1])
        look_into_torch(folder / "model.pt2", info)


def look_into_onnx(path: Path, info: era_cnn.DataInfo, num_logits: int) -> None:
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [20]
    for value, name, sizes in (
        (model.graph.input, "images", info.shape),
        (model.graph.output, "logits", (num_logits,)),
    ):
        (tensor,) = value
        batch, *others = tensor.type.tensor_type.shape.dim
        assert tensor.name == name
        assert batch.dim_param, "the number of images is fixed"
        assert [dim.dim_value for dim in others] == list(sizes)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    for node in model.graph.node:
        assert node.op_type != "Dropout"
        assert not any(each.name == "training_mode" and each.i for each in node.attribute), node.op_type
    assert not any(each.external_data for each in model.graph.initializer)


def look_into_torch(path: Path, info: era_cnn.DataInfo) -> None:
    program = torch.export.load(path)
    (images,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == "images")
    batch, *others = images.meta["val"].shape
    assert isinstance(batch, torch.SymInt), "the number of images is fixed"
    assert others == list(info.shape)
    (allowed,) = program.range_constraints.values()
    assert (allowed.lower, allowed.upper > 10**9) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_network_of_every_experiment(experiment: str, tmp_path: Path) -> None:
    config = config_of(f"experiment={experiment}", "device=cpu")
    network = build_from_config(config).to(memory_format=torch.channels_last)
    check_both(network, Normalise(*config.data.normalisation), config.info, tmp_path)


class Several(nn.Module):
    """Networks side by side: all their logits."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(images) for network in self.networks], dim=1)


@pytest.mark.slow
def test_every_block(tmp_path: Path) -> None:
    """All at once, which takes a tenth of the time."""
    network = Several([build_one(block, fields) for block, examples in EXAMPLES.items() for fields, _ in examples])
    check_both(network, PLAIN, replace(GREY, shape=(1, 10, 10)), tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> era_cnn.Run:
    overrides = [
        *("experiment=model_4_digits", "device=cpu", "threads=1", "trainer.epochs=2", "trainer.ema_decay=0.9"),
        *("optimizer.lr=0.1", "data.val_size=100", "target.test_accuracy=null", "report=false", "scheduler=constant"),
    ]
    return era_cnn.train(overrides, folder=tmp_path_factory.mktemp("runs") / "a_run", quiet=True)


Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_the_command_writes_all_that_is_needed_and_leaves_the_run_alone(
    run: era_cnn.Run, command: Command, tmp_path: Path
) -> None:
    before = files_sha256(run.path, "*")
    code, out, err = command("export", str(run.path))
    assert (code, err) == (0, "")
    folder = tmp_path / "exports" / "a_run"
    first, second, last = out.splitlines()
    accuracy = f"{100 * run.result['final_test_accuracy']:.2f}% of 360 test images; 0 predictions changed"
    assert first.startswith(f"model.onnx: {accuracy}, logits differ by up to ")
    assert second.startswith(f"model.pt2: {accuracy}, logits differ by up to ")
    assert last == "Export folder: exports/a_run"
    names = ["README.md", "export.json", "model.onnx", "model.pt2", "run_onnx.py"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert files_sha256(run.path, "*") == before
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert about["weights_sha256"] == run.result["weights_sha256"]
    assert about["class_names"] == list("0123456789")
    assert about["input"] == {"name": "images", "dtype": "uint8", "shape": ["N", 1, 28, 28]}
    assert about["normalisation_within"]["mean"] == run.config.data.mean
    assert about["verified"]["model.onnx"]["accuracy"] == pytest.approx(run.result["final_test_accuracy"])
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for said in ("uint8, (N, 1, 28, 28)", "**Do not normalise them:**", "opset 20", "run_onnx.py", "torch.export.load"):
        assert said in readme
    assert "{" not in readme.replace("{%", "")


@pytest.mark.slow
def test_each_checkpoint_has_its_weights(run: era_cnn.Run, command: Command, tmp_path: Path) -> None:
    digests = set()
    for checkpoint in ("last", "best", "ema"):
        words = ("--checkpoint", checkpoint, "--format=torch", "--to", checkpoint)
        code, _, err = command("export", str(run.path), *words)
        assert (code, err) == (0, "")
        about = json.loads((tmp_path / checkpoint / "export.json").read_text(encoding="utf-8"))
        assert about["checkpoint"] == checkpoint
        assert about["opset"] is None
        assert sorted(path.name for path in (tmp_path / checkpoint).iterdir()) == [
            "README.md",
            "export.json",
            "model.pt2",
        ]
        digests.add(about["weights_sha256"])
        accuracy = about["verified"]["model.pt2"]["accuracy"]
        if checkpoint != "best":
            expected = run.result["ema_test_accuracy" if checkpoint == "ema" else "final_test_accuracy"]
            assert accuracy == pytest.approx(expected)
    is_last_best = run.result["best_val_epoch"] == 2
    assert len(digests) == (2 if is_last_best else 3)


@pytest.mark.slow
def test_from_python_a_folder_that_exists_gets_a_number(run: era_cnn.Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = run.export("mine", formats=["onnx"], opset=18)
    assert done.path == tmp_path / "mine_2"
    assert done.verified["model.onnx"].num_images == 360
    model = onnx.load(done.path / "model.onnx")
    assert model.opset_import[0].version == 18


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--opset=17"], 2, "--opset must be from 18 to 23, got 17. The default is 20."),
        (["--opset=20", "--format=torch"], 2, "--opset must go with --format=onnx, got 20. Leave it out."),
        (["--to=RUN/export"], 2, "--to must be outside the folder of the run, got 'RUN/export'. Choose another"),
        (["--to=RUN"], 2, "--to must be outside the folder of the run, got 'RUN'."),
        (["--to=$HOME/x"], 2, "--to must be a path without quotes, variables and the like, got '$HOME/x'."),
        (["--to=."], 4, "got one that contains the current directory. Choose another folder with --to."),
        (["--to=file/x"], 4, "must be a folder that can be created, got Not a directory"),
        (["--data-root=x"], 2, "--data-root must "),
    ],
)  # fmt: skip
def test_each_mistake_has_its_message(
    words: list[str], code: int, message: str, run: era_cnn.Run, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "RUN").symlink_to(run.path)
    got, out, err = command("export", str(run.path), *(word.replace("RUN", str(run.path)) for word in words))
    assert (got, out) == (code, "")
    assert message.replace("RUN", str(run.path))[:60] in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "RUN"}


def test_without_the_extra_nothing_is_begun(
    run: era_cnn.Run, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnxscript" else True)
    monkeypatch.setattr(era_cnn.Run, "network", lambda *arguments: pytest.fail("began"))
    code, _, err = command("export", str(run.path))
    assert code == 2
    message = (
        "--format=onnx must have its packages installed, got no onnxscript. Install them: pip install 'era_cnn[export]'"
    )
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_averaged_weights_says_so(command: Command) -> None:
    small = ["data=digits", "trainer=smoke", "threads=1", "device=cpu", "trainer.limit_train_images=64"]
    plain = era_cnn.train(small, folder="plain", quiet=True)
    code, _, err = command("export", str(plain.path), "--checkpoint=ema")
    assert code == 2
    assert "--checkpoint must be last or best: the run kept no averaged weights, got 'ema'." in err


def in_training_form(network: nn.Module, *others: object) -> torch.export.ExportedProgram:
    """With PyTorch's own batch norm, since the training form of ours can't be exported for any number of images."""
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.__class__ = nn.BatchNorm2d
            each.train()
    return traced(network, *others)


def with_another_mean(network: nn.Module, normalise: Normalise, info: era_cnn.DataInfo) -> torch.export.ExportedProgram:
    return traced(network, Normalise([0.2], [0.3238]), info)


def for_three_images(network: nn.Module, normalise: Normalise, info: era_cnn.DataInfo) -> torch.export.ExportedProgram:
    return torch.export.export(
        formats._FromPixels(network, normalise), (torch.zeros(3, *info.shape, dtype=torch.uint8),)
    )


def without_numbers(network: nn.Module, *others: object) -> torch.export.ExportedProgram:
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    return traced(network, *others)


def traced(network: nn.Module, normalise: Normalise, info: era_cnn.DataInfo) -> torch.export.ExportedProgram:
    whole = formats._FromPixels(network, normalise)
    images = torch.zeros(3, *info.shape, dtype=torch.uint8)
    return torch.export.export(whole, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def not_exportable(network: nn.Module, *others: object) -> torch.export.ExportedProgram:
    class Chooses(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    return trace(Chooses(), *others)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch warns about what is wrong here on purpose
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (with_another_mean, "model.pt2 must give the network's logits, got a difference of "),
        (in_training_form, "model.pt2 must give the network's logits, got a difference of "),
        (for_three_images, "model.pt2 must be exportable, got "),
        (without_numbers, "model.pt2 must give the network's logits, got a difference of nan"),
        (not_exportable, "The network must be exportable, got "),
    ],
)
def test_what_gives_other_logits_is_not_left_behind(
    wrong: Callable[..., object],
    message: str,
    run: era_cnn.Run,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "trace", wrong)
    code, out, err = command("export", str(run.path), "--format=torch")
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_difference_in_one_batch_size_alone_is_found(tmp_path: Path) -> None:
    """Each size occurs, also with fewer test images than the largest batch has."""
    seen: list[int] = []
    test = Split(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))

    def run(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return np.full((len(images), 2), 1.0 if len(images) == 1 else 0.0, dtype=np.float32)

    fake = replace(FORMATS["torch"], load=lambda path: run)
    with pytest.raises(ExportError, match="got a difference of 1 and 0 other predictions for 5 test images"):
        verify(tmp_path / "model.pt2", fake, test, np.zeros((5, 2), dtype=np.float32), large=20)
    assert seen == [1, 2, 7, 20]


def test_an_unknown_format() -> None:
    with pytest.raises(ConfigError, match="--format must be one of onnx, torch, got 'tflite'"):
        module._check(["tflite"], None)


def write_digits(folder: Path) -> tuple[list[str], np.ndarray]:
    """The test images of the digits as files, in order, and their labels."""
    arrays = read_digits(train_size=1437)
    names = [f"{index:03d}.png" for index in range(len(arrays.test_images))]
    for name, pixels in zip(names, arrays.test_images, strict=True):
        Image.fromarray(pixels.squeeze()).save(folder / name)
    return names, arrays.test_labels


@pytest.mark.slow
@pytest.mark.process
def test_the_script_alone_reaches_the_accuracy_of_the_run(run: era_cnn.Run, tmp_path: Path) -> None:
    exported = run.export(formats=["onnx"]).path
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("model.onnx", "export.json", "run_onnx.py"):
        shutil.move(exported / name, alone / name)
    names, labels = write_digits(alone)
    done = subprocess.run(
        [sys.executable, "-I", "run_onnx.py", *names], cwd=alone, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    predicted = [int(line.split(": ")[1].split()[0]) for line in done.stdout.splitlines()]
    assert np.mean(predicted == labels) == pytest.approx(run.result["final_test_accuracy"])


@pytest.mark.slow
@pytest.mark.process
def test_a_program_is_loaded_without_era_cnn(run: era_cnn.Run) -> None:
    exported = run.export(formats=["torch"]).path
    program = (
        "import sys, torch; network = torch.export.load(sys.argv[1]).module()\n"
        "logits = [network(torch.zeros(n, 1, 28, 28, dtype=torch.uint8)) for n in (1, 20)]\n"
        "assert [len(each) for each in logits] == [1, 20] and 'era_cnn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program, str(exported / "model.pt2")], check=True)


@pytest.mark.slow
@pytest.mark.process
def test_a_user_without_a_name_can_export(run: era_cnn.Run, tmp_path: Path) -> None:
    """As in a container that runs under a number; PyTorch asks for the name when it is imported."""
    program = (
        "import os, pwd, sys\n"
        "def unknown(uid): raise KeyError(f'getpwuid(): uid not found: {uid}')\n"
        "pwd.getpwuid = unknown\n"
        "from era_cnn.cli import main; sys.exit(main(['export', sys.argv[1], '--format=torch', '--to=made']))\n"
    )
    names = ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME")
    env = {name: value for name, value in os.environ.items() if name not in names}
    subprocess.run([sys.executable, "-c", program, str(run.path)], env=env, check=True, capture_output=True)
    assert (tmp_path / "made" / "model.pt2").exists()


TINY = """
name: tiny
dropout: 0.0
norm: batch
activation: relu
bias: false
order: [conv, activation, norm, dropout]
layers:
  conv1: {block: conv, out_channels: 4}
  flat: {block: flatten}
  logits: {block: linear, out_features: classes}
"""


@pytest.mark.slow
def test_colour_images_that_are_not_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    root = make_folder(tmp_path / "images", TWO_SPLITS)
    (tmp_path / "groups" / "model").mkdir(parents=True)
    (tmp_path / "groups" / "model" / "tiny.yaml").write_text(TINY, encoding="utf-8")
    overrides = ["experiment=own_images", "model=tiny", f"data.root={root}", "data.size=[12,10]", "augmentation=none"]
    overrides += ["trainer.limit_epochs=1", "threads=1", "device=cpu", "report=false"]
    run = era_cnn.train(overrides, folder="run", quiet=True, config_dir=tmp_path / "groups")
    exported = run.export().path
    files = sorted((root / "test").rglob("*.png"))
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", *map(str, files)])
    capsys.readouterr()
    runpy.run_path(str(exported / "run_onnx.py"))
    predicted = [line.split(": ")[1].split()[0] for line in capsys.readouterr().out.splitlines()]
    right = [file.parent.name == name for file, name in zip(files, predicted, strict=True)]
    assert np.mean(right) == pytest.approx(run.result["final_test_accuracy"])
    assert "red, green, blue" in (exported / "README.md").read_text(encoding="utf-8")
