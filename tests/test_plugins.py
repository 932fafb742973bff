"""Plugins as a user meets them: on the command line, with a run, a sweep, and everything that can be wrong with one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from era_cnn.config import plugins
from era_cnn.config.choices import BLOCKS, REGISTRIES
from era_cnn.config.schedule import Schedule
from era_cnn.errors import ConfigError
from tests.helpers import nothing_stays_registered

SMALL = [
    "data=digits", "trainer=smoke", "threads=1", "device=cpu", "trainer.limit_train_images=64",
    "trainer.limit_test_images=50",
]  # fmt: skip
SCALED = [
    *SMALL, "+model.layers.scaled={block: scaled}", "~model.layers.gap", "+model.layers.end={block: gap_head}",
]  # fmt: skip
HEAD = """
from typing import Annotated
import numpy as np
from pydantic import Field
from torch import nn
import era_cnn
"""
SCALE = (
    HEAD
    + """
from helper_of_scale import SCALE

@era_cnn.block("scaled")
class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()

    def forward(self, images):
        return images * SCALE
"""
)
SHAPES = (
    HEAD
    + """
@era_cnn.dataset("shapes")
class Shapes:
    def __init__(self, *, size: Annotated[int, Field(ge=4, le=64, description="the size")] = 8) -> None:
        CONSTRUCTOR
        self.size = size

    def info(self):
        return INFO

    def read(self):
        READ
        images = np.zeros((40, 2, self.size, self.size), np.uint8)
        return era_cnn.Arrays(images, np.arange(40) % 3, images[:10], np.arange(10) % 3)
"""
)
RIGHT = "era_cnn.DataInfo((2, self.size, self.size), ('a', 'b', 'c'), 40, 10)"
SHAPED = ["data=shapes", "data.mean=[0,0]", "data.std=[1,1]", "trainer=smoke", "threads=1", "device=cpu"]


@pytest.fixture(autouse=True)
def _forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(tmp_path))
    with nothing_stays_registered():
        yield
    sys.modules.pop("helper_of_scale", None)


def write(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def shapes(constructor: str = "pass", info: str = RIGHT, read: str = "pass") -> str:
    return write("shapes.py", SHAPES.replace("CONSTRUCTOR", constructor).replace("INFO", info).replace("READ", read))


def scale(value: str) -> str:
    sys.modules.pop("helper_of_scale", None)
    write("helper_of_scale.py", f"SCALE = {value}\n")
    return write("scale.py", SCALE)


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()} - {"shapes.py", "scale.py", "helper_of_scale.py", "__pycache__"}


@pytest.mark.parametrize("helper", ["helper_of_scale.py", "helper_of_scale/__init__.py"])
def test_a_file_is_told_how_to_import_its_neighbour(helper: str, command, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sub" / helper).parent.mkdir(parents=True)
    write(f"sub/{helper}", "SCALE = 2.0\n")
    words = ["--plugin", write("sub/scale.py", SCALE), "--cfg", "job", "-p", "seed"]
    code, _, err = command(*words)
    assert code == 2
    advice = (
        f"helper_of_scale is beside it, where Python does not search: set PYTHONPATH={tmp_path}/sub, or install it.\n"
    )
    assert err.endswith(f"got ModuleNotFoundError: No module named 'helper_of_scale'. {advice}")
    monkeypatch.syspath_prepend(str(tmp_path / "sub"))
    assert command(*words)[0] == 0
    (plugin,) = plugins.imported()
    assert str(tmp_path / "sub" / helper) in plugin.files


def test_a_data_set_without_a_file_of_its_own_is_an_option_of_its_group(command) -> None:
    plugin = shapes()
    code, out, err = command("--plugin", plugin, "--cfg", "job", "-p", "data", "data=shapes")
    assert (code, err) == (0, "")
    assert "size: 8" in out
    code, _, err = command("--plugin", plugin, "data=shapes", "data.size=2", "data.mean=[0,0]", "data.std=[1,1]")
    assert code == 2
    assert "data.size must be at least 4, got 2." in err


@pytest.mark.parametrize(
    ("parts", "code", "message"),
    [
        (
            {"constructor": "raise era_cnn.FieldError('size', 'be even', size, 'Round it.')"},
            2,
            "data.size must be even, got 8. Round it.",
        ),
        ({"info": "era_cnn.DataInfo((2, 0, 8), ('a', 'b'), 40, 10)"}, 2, "dataset.shapes must describe itself, got "),
        ({"info": "era_cnn.DataInfo((2, 8, 8), 'ab', 40, 10)"}, 2, "dataset.shapes must describe itself, got "),
        ({"info": "{}['nothing']"}, 2, "dataset.shapes must describe itself, got KeyError: 'nothing'."),
        ({"info": "(2, 8, 8)"}, 2, "dataset.shapes must return a DataInfo from info(), got (2, 8, 8)."),
        ({"read": "open('nowhere')"}, 3, "The data set shapes must be readable, got FileNotFoundError: "),
        ({"info": RIGHT.replace("40, 10", "41, 10")}, 3, "The data set shapes must "),
    ],
)
def test_a_data_set_that_is_wrong_has_one_message_and_leaves_nothing(
    parts: dict[str, str], code: int, message: str, command, tmp_path: Path
) -> None:
    plugin = shapes(**parts)
    padded = [f"+model.layers.{name}.padding=1" for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "logits")]
    words = ["--plugin", plugin, *SHAPED, "model.layers.logits.out_channels=3", "~model.layers.pool", *padded]
    got, _, err = command(*words)
    assert (got, err.count("\n")) == (code, 1), err
    assert message in err
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "@era_cnn.optimizer('lion')\ndef lion(params, *, lr: Annotated[float, Field(gt=0, le=1)]): ...",
            "optimizer.lion must take any of parameters by position, and its fields behind a *, got the parameter params.",
        ),
        ("@era_cnn.scheduler('any')\ndef schedule(**options): ...", "got the parameter **options."),
        ("@era_cnn.dataset('any')\nclass Any:\n    def __init__(self, root): ...", "must take nothing by position"),
    ],
)
def test_a_signature_that_nobody_can_call_is_refused(text: str, message: str, command, tmp_path: Path) -> None:
    plugin = write("shapes.py", HEAD + text)
    code, _, err = command("--plugin", plugin, *SMALL)
    assert code == 2
    assert message in err
    assert left(tmp_path) == set()


PARTS = {
    "block": """
        @era_cnn.block("bad")
        def bad():
            class Bad(nn.Module):
                def forward(self, images):
                    return GIVEN
            return MADE
        """,
    "transform": """
        from era_cnn.data.transforms import Mix

        @era_cnn.transform("bad")
        def bad():
            def change(images, *draws):
                return GIVEN
            return MADE
        """,
    "optimizer": """
        @era_cnn.optimizer("bad")
        def bad(parameters):
            return MADE
        """,
    "scheduler": """
        @era_cnn.scheduler("bad")
        def bad():
            return MADE
        """,
    "dataset": """
        @era_cnn.dataset("bad")
        def bad():
            class Bad:
                def info(self):
                    return era_cnn.DataInfo((1, 28, 28), tuple("0123456789"), 80, 60)
                def read(self):
                    images, labels = np.zeros((80, 28, 28), np.uint8), np.arange(80) % 10
                    return GIVEN
            return MADE
        """,
    "logger": """
        @era_cnn.logger("bad")
        def bad(run):
            return MADE
        """,
}
WITH = {
    "block": ["+model.layers.bad={block: bad}", "~model.layers.gap", "+model.layers.end={block: gap_head}"],
    "transform": ["augmentation=bad"],
    "optimizer": ["optimizer=bad"],
    "scheduler": ["scheduler=bad"],
    "dataset": ["data=bad", "data.mean=[0]", "data.std=[1]"],
    "logger": ["logger=bad"],
}


def use_bad(kind: str, command, made: str, given: str = "images") -> tuple[int, str, str]:
    """The exit code, what was said, and the file; it is the entry `bad` of that kind that a run of that kind uses."""
    text = textwrap.dedent(HEAD) + "import torch\n" + textwrap.dedent(PARTS[kind])
    plugin = write("shapes.py", text.replace("MADE", made).replace("GIVEN", given))
    words = [*SMALL[kind == "dataset" :], *WITH[kind]]
    code, _, err = command("--plugin", plugin, *words, "report=false", "hydra.run.dir=run")
    return code, err, str(Path(plugin).resolve())


NOT_MADE = {
    "block": ["None", "Bad", "object()", "lambda images: images", "Bad.__new__(Bad)"],
    "transform": ["None", "'x'", "change", "era_cnn.Transform", "era_cnn.Transform(-1, change)", "Mix(1, None)"],
    "optimizer": [
        "None",
        "'x'",
        "torch.optim.SGD",
        "[torch.optim.SGD(parameters, lr=1)]",
        "torch.optim.LBFGS(parameters)",
        "torch.optim.Optimizer(parameters, {})",
        "(lambda made: made.param_groups[0].update(params=None) or made)(torch.optim.SGD(parameters, lr=1))",
    ],
    "scheduler": ["None", "'x'", "True", "[1.0]", "1.0", "era_cnn.Schedule", "era_cnn.Schedule(None)"],
    "dataset": ["None", "Bad", "object()"],
}


@pytest.mark.parametrize(("kind", "made"), [(kind, made) for kind, each in NOT_MADE.items() for made in each])
def test_an_entry_that_makes_something_else_is_named_with_its_file(
    kind: str, made: str, command, tmp_path: Path
) -> None:
    code, said, file = use_bad(kind, command, made)
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith(f"{kind}.bad must make a")
    assert said.endswith(f". Fix {kind}.bad in {file}.\n")
    assert left(tmp_path) == set()


def test_a_layer_may_return_complex_numbers_if_the_next_one_takes_them(command) -> None:
    text = textwrap.dedent(HEAD) + "import torch\n" + textwrap.dedent(PARTS["block"])
    text += textwrap.dedent("""
        @era_cnn.block("back")
        class Back(nn.Module):
            def __init__(self):
                super().__init__()
            def forward(self, images):
                return images.abs()
        """)
    plugin = write("shapes.py", text.replace("MADE", "Bad()").replace("GIVEN", "torch.complex(images, images)"))
    layers = ["+model.layers.bad={block: bad}", "+model.layers.back={block: back}"]
    words = [*SMALL, *layers, *WITH["block"][1:], "report=false"]
    code, _, err = command("--plugin", plugin, *words)
    assert (code, err) == (0, "")


def test_an_optimizer_may_leave_out_parameters(command) -> None:
    assert use_bad("optimizer", command, "torch.optim.SGD(list(parameters)[:1], lr=1)")[:2] == (0, "")


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_program_relies_on_what_entries_of_every_kind_make(kind: str) -> None:
    registry = REGISTRIES[kind]
    registry.register("bad")(lambda: None)
    section = registry.section("bad").model_construct(name="bad")
    with pytest.raises(ConfigError, match=rf"{kind}.bad must make a.*, got None\. Fix {kind}.bad in .*\.py\."):
        registry.make("bad", section)


@pytest.mark.parametrize(
    ("kind", "given", "code"),
    [
        ("block", "None", 2),
        ("block", "(images, images)", 2),
        ("block", "[images]", 2),
        ("block", "images.numpy()", 2),
        ("block", "images.mean()", 2),
        ("block", "images.sum((1, 2, 3))", 2),
        ("block", "images.new_zeros(2, *images.shape[1:])", 2),
        ("block", "torch.cat([images, images])", 2),  # known once there is an image
        ("dataset", "None", 3),
        ("dataset", "[images, labels, images[:60], labels[:60]]", 3),
        ("dataset", "era_cnn.Arrays", 3),
        ("dataset", "era_cnn.Arrays(images / 255, labels, images[:60], labels[:60])", 3),
        ("dataset", "era_cnn.Arrays(images, list(labels), images[:60], labels[:60])", 3),
        ("dataset", "era_cnn.Arrays(images, labels, images[:60], labels[:60] + 1)", 3),
        ("dataset", "era_cnn.Arrays(images, labels, images, labels)", 3),
        ("dataset", "era_cnn.Arrays(images, labels, images[:60], labels[:60], known='x')", 3),
        ("dataset", "era_cnn.Arrays(images, labels, images[:60], labels[:60], class_names='0123456789')", 3),
    ],
)
def test_what_an_entry_returns_is_refused_before_the_run_begins(
    kind: str, given: str, code: int, command, tmp_path: Path
) -> None:
    got, said, file = use_bad(kind, command, "Bad()", given)
    assert (got, said.count("\n")) == (code, 1), said
    assert " must " in said
    assert ", got " in said
    assert said.endswith(f". Fix {kind}.bad in {file}.\n")
    assert left(tmp_path) == set()


def test_what_a_data_set_reads_is_looked_at_before_its_mean_is_computed(command, tmp_path: Path) -> None:
    given = "era_cnn.Arrays(images / 255, labels, images[:60], labels[:60])"
    text = (HEAD + textwrap.dedent(PARTS["dataset"])).replace("MADE", "Bad()").replace("GIVEN", given)
    code, _, err = command("--plugin", write("shapes.py", text), "data=bad", "trainer=smoke")
    assert code == 3
    assert err.startswith("dataset.bad must read training images of uint8, got float64. Fix dataset.bad in ")
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("kind", "made", "given"),
    [
        ("block", "Bad()", "images if not len(images) or not self.training else (images,)"),
        ("block", "Bad()", "images[:1]"),
        ("transform", "era_cnn.Transform(1, change)", "None"),
        ("transform", "era_cnn.Transform(1, change)", "images.float()"),
        ("transform", "era_cnn.Transform(1, change)", "images[:, :, 1:]"),
        ("transform", "era_cnn.Transform(1, change)", "images.numpy()"),
        ("transform", "Mix(1, change)", "images"),
        ("transform", "Mix(1, change)", "(images, draws[-1][0] + 5)"),
        ("transform", "Mix(1, change)", "(images[:1], draws[-1][0])"),
    ],
)
def test_what_an_entry_returns_in_training_fails_the_run_in_one_message(
    kind: str, made: str, given: str, command, tmp_path: Path
) -> None:
    code, said, file = use_bad(kind, command, made, given)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith(f"{kind}.bad must return a tensor ")
    assert said.endswith(f". Fix {kind}.bad in {file}.\n")
    status = json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status.get("traceback", "")) == ("failed", "")


@pytest.mark.parametrize(
    ("kind", "made", "given"),
    [
        ("block", "Bad()", "images if not self.training else {}['mine']"),
        ("block", "Bad()", "images if not len(images) else {}['mine']"),
        ("transform", "era_cnn.Transform(1, change)", "{}['mine']"),
        ("optimizer", "{}['mine']", ""),
        ("dataset", "Bad()", "{}['mine']"),
    ],
)
def test_what_the_code_of_an_entry_raises_in_a_run_keeps_its_traceback(
    kind: str, made: str, given: str, command, tmp_path: Path
) -> None:
    code, said, file = use_bad(kind, command, made, given)
    assert code == 1
    assert f'File "{file}", line ' in said
    status = json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))
    assert status["message"] == "KeyError: 'mine'"
    assert f'File "{file}", line ' in status["traceback"]


@pytest.mark.slow
def test_an_edited_helper_is_noticed_by_replay_and_reuse(command, tmp_path: Path) -> None:
    plugin = scale("2.0")
    assert command("--plugin", plugin, *SCALED, "hydra.run.dir=run")[0] == 0
    sweep = ["-m", "--plugin", plugin, *SCALED, "seed=1,2", "sweep.reuse=true", "sweep.reuse_from=[run,one]"]
    assert command(*sweep, "hydra.sweep.dir=one")[0] == 0
    states = [json.loads(path.read_text())["state"] for path in sorted((tmp_path / "one").glob("*/status.json"))]
    assert states == ["completed", "completed"]
    assert "reused_from" in (tmp_path / "one" / "0_model_4" / "status.json").read_text(encoding="utf-8")
    with nothing_stays_registered():
        plugins._imported.clear()
        BLOCKS.restore({name: entry for name, entry in BLOCKS.imported().items() if name != "scaled"})
        scale("3.0")
        assert command(*sweep, "hydra.sweep.dir=two")[0] == 0
        assert "reused_from" not in (tmp_path / "two" / "0_model_4" / "status.json").read_text(encoding="utf-8")
        code, out, err = command("replay", "run", "--plugin", plugin)
        assert code == 1
        assert "plugin block.scaled " in out
        assert "Likely cause: " in err


@pytest.mark.parametrize("verb", ["resume", "replay"])
def test_a_run_without_its_plugin_says_so_and_leaves_nothing(verb: str, command, tmp_path: Path) -> None:
    with nothing_stays_registered():
        assert command("--plugin", scale("2.0"), *SCALED, "hydra.run.dir=run")[0] == 0
    if verb == "resume":
        (tmp_path / "run" / "result.json").unlink()
    code, _, err = command(verb, "run")
    assert code == 4
    assert "run must hold a network of known blocks, got scaled. If a plugin has it, give --plugin." in err
    assert command("compare", "run")[0] == 0
    assert left(tmp_path) == {"run"}


def test_jobs_of_a_sweep_load_the_plugin(command, tmp_path: Path) -> None:
    words = ["-m", *SCALED, "seed=1,2", "hydra/launcher=local", "hydra.sweep.dir=sweep"]
    assert command("--plugin", scale("2.0"), *words)[0] == 0
    shutil.rmtree(tmp_path / "sweep" / "1_model_4")
    assert command("resume", "sweep", "--plugin", "scale.py")[0] == 0


@pytest.mark.slow
def test_groups_that_a_plugin_brings_are_found_from_anywhere(command, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [model_4]\nname: mine\n"
    (tmp_path / "elsewhere" / "conf" / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    plugin = write("elsewhere/brings.py", 'CONFIG_DIR = "conf"\n')
    code, out, err = command("--plugin", plugin, "models", "--json")
    assert (code, err) == (0, "")
    assert "mine" in [entry["experiment"] for entry in json.loads(out)]
    write("elsewhere/brings_nothing.py", 'CONFIG_DIR = "nowhere"\n')
    code, _, err = command("--plugin", "elsewhere/brings_nothing.py", "models")
    assert code == 2
    assert f"In the plugin {tmp_path}/elsewhere/brings_nothing.py: CONFIG_DIR must be a folder, got '" in err


def test_a_config_that_two_places_bring_is_refused_unless_the_own_folder_has_it(command) -> None:
    network = "name: mine\nlayers:\n  gap: {block: gap_head, projection: conv}\n"
    for folder, name in (("one", "mine"), ("two", "mine"), ("two", "model_3"), ("own", "mine")):
        write(f"{folder}/model/{name}.yaml", network)
    one, two = (write(f"{folder}.py", f"CONFIG_DIR = '{folder}'\n") for folder in ("one", "two"))
    describe = ["describe", "~experiment", "data=digits"]
    assert command("--plugin", one, *describe, "model=mine")[0] == 0
    link = write("link.py", "CONFIG_DIR = 'linked'\n")
    Path("linked").symlink_to("one")
    assert command("--plugin", one, "--plugin", link, *describe, "model=mine")[0] == 0
    both = ["--plugin", one, "--plugin", two, *describe]
    code, _, err = command(*both, "model=mine")
    places = f"{Path('one').resolve()} and {Path('two').resolve()}"
    assert (code, err) == (
        2,
        f"model/mine must come from one place, got {places}. Rename one, or use one of the two.\n",
    )
    code, _, err = command(*both, "model=model_3")
    places = f"{Path('two').resolve()} and era_cnn.conf"
    assert (code, err) == (2, f"model/model_3 must come from one place, got {places}. Rename the plugin's.\n")
    assert command(*both, "--config-dir", "own", "model=mine")[0] == 0
    assert command(*both, "model=model_4")[0] == 0


def test_every_fault_of_a_file_is_named_in_order(command) -> None:
    parts = "".join(f"@era_cnn.block('{name}')\nclass {name}(nn.Module): ...\n" for name in ("c", "a", "b"))
    file = str(Path(write("shapes.py", f"{HEAD}{parts}")).absolute())
    code, _, err = command("--plugin", file, "describe")
    rule = "take any of in_channels, in_size, in_shape, in_shapes, num_classes by position, and its fields behind a *"
    faults = [
        f"In the plugin {file}: block.{name} must {rule}, got the parameter *args: Any. Write an __init__ for it."
        for name in ("c", "a", "b")
    ]
    assert (code, err.splitlines()) == (2, faults)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CONFIG_DIR = 5", "CONFIG_DIR must be the path of a folder, got 5. "),
        ("CONFIG_DIR = ['conf']", "CONFIG_DIR must be the path of a folder, got ['conf']. "),
        ("CONFIG_DIR = ''", "CONFIG_DIR must be the path of a folder, got ''. "),
        ("CONFIG_DIR = False", "CONFIG_DIR must be the path of a folder, got false. "),
        ("@era_cnn.block\nclass X: ...", "era_cnn.block must be called with a name, as a string, got <class "),
        ("@era_cnn.optimizer(5)\ndef f(): ...", "era_cnn.optimizer must be called with a name, as a string, got 5. "),
    ],
)
def test_what_is_written_wrongly_in_a_file_is_named(text: str, message: str, command) -> None:
    code, _, err = command("--plugin", write("shapes.py", f"import era_cnn\n{text}\n"), "describe")
    assert (code, err.count("\n")) == (2, 1)
    assert f"shapes.py: {message}" in err


def test_an_edit_within_a_second_is_not_hidden_by_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytecode counts as current while a file has the same size and second of change."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(tmp_path)
    for value in ("2.0", "3.0"):
        with nothing_stays_registered():
            path = Path(scale(value)).absolute()
            for each in (path, path.with_name("helper_of_scale.py")):
                os.utime(each, (1e9, 1e9))
            plugins.import_file(path)
            assert float(value) == sys.modules["helper_of_scale"].SCALE
            plugins.forget(path)
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["describe", "model.layers.conv1.out_channels=17", "target.max_params=null"], 0),
        (["list"], 0),
        (["--cfg", "job"], 0),
        ([*SMALL, "optimizer=lyon"], 2),
    ],
)
def test_a_faulty_package_is_named_and_the_rest_works(words: list[str], code: int, command, install) -> None:
    install("demo", {"blocks.squeeze": "demo_nowhere", "optimizer.lion": "demo_nowhere"})
    install("demo2", {"optimizer.lion": "demo_other", "block.wide": "demo_other"})
    got, _, err = command(*words)
    first, *rest = err.splitlines()
    assert (got, len(rest)) == (code, 1 if code else 0), err
    assert first.startswith("The entry point blocks.squeeze of the package demo must be called KIND.NAME, ")
    assert all("Did you mean lion?" in line for line in rest)


@pytest.mark.parametrize("words", [["--version"], ["--shell-completion", "install=bash"], ["-sc", "install=bash"]])
def test_what_looks_at_no_plugin_says_nothing_of_them(words: list[str], command, install) -> None:
    install("demo", {"blocks.squeeze": "demo_nowhere"})
    assert command(*words)[2] == ""


FACTORS = [
    "None", "'x'", "[1.0]", "-1.0", "float('nan')", "float('inf')", "10**400", "1j", "__import__('decimal').Decimal(0)",
]  # fmt: skip
SCHEDULES = [
    *(f"lambda step: {factor}" for factor in FACTORS),
    *(f"era_cnn.Schedule(lambda step: 1.0, after=lambda watched: {factor})" for factor in FACTORS),
    *(f"era_cnn.Schedule(lambda step: 1.0, lambda step: {momentum})" for momentum in [*FACTORS, "1.0"]),
    "lambda step: 1.0 - step",
    "era_cnn.Schedule(lambda step: 1.0, lambda step: step / 2)",
]


@pytest.mark.parametrize("made", SCHEDULES)
@pytest.mark.parametrize("update", ["step", "epoch"])
def test_a_schedule_gives_factors_and_momenta_in_range_or_is_refused(
    made: str, update: str, command, tmp_path: Path
) -> None:
    text = (HEAD + textwrap.dedent(PARTS["scheduler"])).replace("MADE", made)
    plugin = write("shapes.py", text)
    words = [*SMALL, "scheduler=bad", f"scheduler.update={update}", "optimizer.momentum=0.9", "trainer.limit_epochs=3"]
    watch = ["trainer.watch=train_loss"] if "after" in made else []
    code, _, err = command("--plugin", plugin, *words, *watch)
    assert (code, err.count("\n")) == (2, 1), err
    rule = "a momentum in [0, 1)" if "1.0, lambda" in made else "a finite factor of the learning rate, at least 0"
    assert err.startswith(f"scheduler.bad must give {rule}, got ")
    assert err.endswith(f". Fix scheduler.bad in {Path(plugin).resolve()}.\n")
    assert left(tmp_path) == set()


def test_a_factor_that_only_the_training_shows_fails_the_run_in_one_message(command, tmp_path: Path) -> None:
    made = "era_cnn.Schedule(lambda step: 1.0, after=lambda watched: -1.0 if watched else 1.0)"
    plugin = write("shapes.py", (HEAD + textwrap.dedent(PARTS["scheduler"])).replace("MADE", made))
    words = [*SMALL, "scheduler=bad", "trainer.limit_epochs=2", "trainer.watch=train_loss", "report=false"]
    code, _, err = command("--plugin", plugin, *words, "hydra.run.dir=run")
    assert (code, err.count("\n")) == (1, 1), err
    assert "scheduler.bad must give a finite factor of the learning rate, at least 0, got -1.0. Fix" in err
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "failed"


@pytest.mark.parametrize(
    ("function", "code"),
    [("[1.0, 0.9].__getitem__", 0), ("lambda step: 1 / (1 - step)", 1), ("lambda step: [][step]", 1)],
)
def test_a_schedule_is_asked_only_for_steps_that_are_trained(function: str, code: int, command, tmp_path: Path) -> None:
    plugin = write("shapes.py", (HEAD + textwrap.dedent(PARTS["scheduler"])).replace("MADE", function))
    words = [*SMALL, "scheduler=bad", "trainer.batch_size=32", "trainer.limit_epochs=1", "report=false"]
    got, _, err = command("--plugin", plugin, *words, "hydra.run.dir=run")
    assert got == code
    state = json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"]
    assert state == ("failed" if code else "completed")
    assert ("Traceback" in err) == bool(code), "what the code of a plugin raises keeps its place"


MADE_TRANSFORMS = {
    "an int of NumPy": ("np.int64(1)", "era_cnn.Transform(NUMBER, change)", "images"),
    "a class of its own": ("1", "Own()", "images"),
    "a list": ("1", "Mix(NUMBER, change)", "[images, torch.ones(len(images), dtype=torch.float64)]"),
}


@pytest.mark.parametrize(("number", "made", "given"), MADE_TRANSFORMS.values(), ids=MADE_TRANSFORMS)
def test_a_transform_may_be_made_in_other_ways(number: str, made: str, given: str, command) -> None:
    text = (
        textwrap.dedent(HEAD)
        + textwrap.dedent("""
        import dataclasses
        import torch

        @dataclasses.dataclass(frozen=True)
        class Own:
            num_draws: int = 1
            is_last = False
            def change(self, images, draws):
                return images
        """)
        + textwrap.dedent(PARTS["transform"])
    )
    plugin = write("shapes.py", text.replace("MADE", made).replace("GIVEN", given).replace("NUMBER", number))
    code, _, err = command("--plugin", plugin, *SMALL, "augmentation=bad", "report=false")
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_a_network_with_a_block_of_a_plugin_is_exported(command, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra export is not installed")
    plugin = write("sq.py", SCALE.replace("from helper_of_scale import SCALE", "SCALE = 2"))
    assert command("--plugin", plugin, *SCALED, "report=false", "hydra.run.dir=run")[0] == 0
    code, out, err = command("--plugin", plugin, "export", "run")
    assert (code, err) == (0, "")
    assert out.count("0 predictions changed") == 2


@pytest.mark.parametrize("factor", ["0", "1", "np.float32(0.5)", "np.int64(1)", "torch.tensor(0.5)"])
def test_a_factor_is_used_as_it_is_given(factor: str) -> None:
    import numpy as np
    import torch

    value = eval(factor, {"np": np, "torch": torch})
    schedule = Schedule(lambda step: value, lambda step: 0, lambda watched: value).checked(lambda rule, got: ValueError)
    assert schedule.lr(0) is schedule.after([]) is value
    assert schedule.momentum(0) == 0
