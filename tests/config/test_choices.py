from __future__ import annotations

import inspect
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import pytest
from pydantic import Field, conint
from pydantic.fields import FieldInfo

from era_cnn.compose.composition import compose, compose_sweep, validated
from era_cnn.compose.launchers import launcher_of
from era_cnn.compose.words import Words
from era_cnn.config import plugins, signatures
from era_cnn.config.choices import (
    BLOCKS,
    DATASETS,
    GROUPS,
    OPTIMIZERS,
    REGISTRIES,
    SCHEDULERS,
    TRANSFORMS,
    Registry,
    load_plugins,
)
from era_cnn.config.code_digests import plugin_digests
from era_cnn.config.data_info import DataInfo
from era_cnn.config.groups import LISTED
from era_cnn.config.parsing import parse
from era_cnn.config.schedule import Schedule
from era_cnn.config.sections import Choice, FieldError, Section
from era_cnn.data.transforms import Transform
from era_cnn.errors import ConfigError, show
from era_cnn.models.build import check_network, layer_problems
from tests.conftest import config_of
from tests.helpers import nothing_stays_registered

BUILT_IN = {
    "block": [
        "activation", "add", "avg_pool", "blur_pool", "concat", "conv", "depthwise_separable", "dropout", "flatten",
        "gap_head", "linear", "max_pool", "norm", "residual", "scale", "squeeze_excite",
        "transition",
    ],
    "dataset": [
        "cifar10", "cifar100", "digits", "emnist", "fashion_mnist", "image_folder", "kmnist", "mnist", "npz", "qmnist", "svhn",
    ],
    "transform": [
        "affine", "auto_augment", "brightness", "centre_crop", "colour_jitter", "contrast", "cutmix", "cutout", "elastic", "erase",
        "gaussian_blur", "gaussian_noise", "greyscale", "horizontal_flip", "hue", "invert", "mixup", "perspective",
        "rand_augment", "random_crop", "resized_crop", "rotate", "saturation", "shift_scale_rotate", "trivial_augment",
        "vertical_flip",
    ],
    "optimizer": ["adadelta", "adagrad", "adam", "adamw", "muon", "nadam", "radam", "rmsprop", "sgd"],
    "scheduler": [
        "constant", "cosine", "cyclic", "exponential", "multi_step", "one_cycle", "piecewise_linear", "plateau",
        "polynomial", "step", "warm_restarts",
    ],
    "launcher": ["ray_cluster", "slurm", "submitit_local"],
    "logger": ["mlflow", "tensorboard", "wandb"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with nothing_stays_registered():
        modules = set(sys.modules)
        yield
        for name in sys.modules.keys() - modules:
            if name.startswith((plugins.PREFIX, "demo_", "helper_")):
                del sys.modules[name]


def a_registry() -> Registry[Any]:
    return Registry("number", "era_cnn.errors", Section)


def refused(action: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        action()
    assert caught.value.exit_code == 2
    return caught.value.problems


# Registering


def test_names_are_sorted_and_lead_to_what_was_registered() -> None:
    registry = a_registry()

    def two() -> None: ...
    def one() -> None: ...

    registry.register("two")(two)
    assert registry.register("one")(one) is one
    assert dict(registry) == {"one": one, "two": two}
    assert list(registry) == ["one", "two"]
    assert len(registry) == 2
    assert "one" in registry
    assert "three" not in registry
    assert "" not in registry
    with pytest.raises(KeyError, match="three"):
        registry["three"]


@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_comes_with_the_package(kind: str) -> None:
    assert list(REGISTRIES[kind]) == BUILT_IN[kind]
    assert BUILT_IN.keys() == REGISTRIES.keys()


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_entry_describes_itself_and_its_fields(kind: str) -> None:
    for name in BUILT_IN[kind]:
        section = REGISTRIES[kind].section(name)
        assert section.__doc__, name
        for field_name, field in section.model_fields.items():
            assert field.description or field_name in ("name", "stride", "pool"), f"{kind}.{name}.{field_name}"


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_numbers_of_every_built_in_entry_have_ranges_as_those_of_plugins_must(kind: str) -> None:
    for name in BUILT_IN[kind]:
        fields = REGISTRIES[kind].section(name).model_fields
        declared = {key: (Annotated[field.annotation, field], field.default) for key, field in fields.items()}
        assert list(signatures.unbounded(kind, name, declared)) == []


def test_a_taken_name_is_refused() -> None:
    registry = a_registry()

    def first() -> None: ...
    def second() -> None: ...

    registry.register("one")(first)
    (said,) = refused(lambda: registry.register("one")(second))
    assert said.startswith("number.one must be registered once, got ")
    assert "first and " in said
    assert said.endswith("second. Rename one of the two.")
    assert registry["one"] is first


def test_the_name_of_a_built_in_entry_is_taken_though_nothing_was_imported() -> None:
    def conv() -> None: ...

    (said,) = refused(lambda: BLOCKS.register("conv")(conv))
    assert (
        "block.conv must be registered once, got era_cnn.models.blocks.convolutions.Conv and tests.config.test_choices."
        in said
    )


@pytest.mark.parametrize(
    "name", ["Conv", "a-b", "1a", "_a", "", "a b", "ä", "a.b", "copy", "model_dump", "json", "chosen"]
)
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    (said,) = refused(lambda: TRANSFORMS.register(name))
    assert said.startswith("The name of a transform must be lower-case letters, digits and _, and no method of pyd")
    assert said.endswith(f"got {name!r}. Rename it.")


def test_what_is_defined_once_more_at_a_prompt_replaces_the_first() -> None:
    def define(module: str, default: int) -> type:
        class Mine:
            def __init__(self, *, size: Annotated[int, Field(ge=1, le=9)] = default) -> None: ...

        Mine.__module__ = module
        return Mine

    first, second = (define("__main__", default) for default in (1, 2))
    BLOCKS.register("mine", check=lambda section: pytest.fail("of the first"))(first)
    BLOCKS.register("mine")(second)
    assert BLOCKS["mine"] is second
    assert BLOCKS.section("mine")().model_dump() == {"size": 2}
    BLOCKS.check("mine", BLOCKS.section("mine")())
    before = BLOCKS.imported()
    BLOCKS.register("mine", check=lambda section: pytest.fail("of what was taken back"))(define("__main__", 3))
    BLOCKS.restore(before)  # as after a plugin that failed
    BLOCKS.check("mine", BLOCKS.section("mine")())
    BLOCKS.register("other")(define("a_module", 1))
    assert refused(lambda: BLOCKS.register("other")(define("a_module", 2)))


# Fields


def register(entry: Any, registry: Registry[Any] = BLOCKS, name: str = "mine") -> type[Section]:
    registry.register(name)(entry)
    return registry.section(name)


@pytest.mark.parametrize(
    ("annotation", "types"),
    [
        (int, "int"),
        (float, "float"),
        (int | None, "int"),
        (int | float, "float, int"),
        (list[int], "int"),
        (list[list[float]], "float"),
        (dict[str, float], "float"),
        (Annotated[int, Field(ge=1)], "int"),
        (Annotated[float, Field(lt=1)], "float"),
        (Annotated[int, Field(description="a number")], "int"),
        (Annotated[int, Field(ge=1)] | None, "int"),
        (Annotated[list[int], Field(min_length=2, max_length=2)], "int"),
        (Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)], "float"),
        (Annotated[float, Field(ge=-math.inf, le=math.inf)], "float"),
        (Annotated[float, Field(gt=-math.inf, lt=1)], "float"),
        (Annotated[float, Field(ge=0, le=math.nan)], "float"),
        (Annotated[int, Field(ge=0, lt=math.inf)] | None, "int"),
        (list[Annotated[float, Field(ge=math.nan, le=1)]], "float"),
    ],
)
def test_a_number_of_a_plugin_without_a_range_is_refused(annotation: Any, types: str) -> None:
    def entry(*, size: annotation) -> None: ...

    entry.__annotations__["size"] = annotation
    (said,) = refused(lambda: register(_with(entry, annotation)))
    assert said.startswith(
        f"block.mine must state a finite range of its field size, got {types} without one. Write it as Annotated["
    )


def _with(entry: Any, annotation: Any) -> Any:
    """With that annotation itself; here they are strings."""
    parameter = inspect.Parameter("size", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    entry.__signature__ = inspect.Signature([parameter])
    return entry


@pytest.mark.parametrize(
    "annotation",
    [
        bool,
        str,
        list[str],
        Literal["a", "b"],
        Literal[1, 2],
        Annotated[int, Field(ge=1, le=2)],
        Annotated[float, Field(gt=0, lt=1)],
        Annotated[int, Field(ge=1, le=2)] | None,
        Annotated[int | None, Field(ge=1, le=2)],
        Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2)],
        list[Annotated[int, Field(ge=0, lt=9)]],
        Annotated[int, Field(ge=0, le=10**400)],
        Annotated[float, annotated_types.Interval(ge=0, lt=1)],
        conint(ge=1, le=2),
    ],
)
def test_a_field_with_a_range_or_without_need_of_one_is_taken(annotation: Any) -> None:
    def entry(*, size: Any) -> None: ...

    assert list(register(_with(entry, annotation)).model_fields) == ["size"]


def with_default(annotation: Any, default: Any) -> Any:
    def entry(*, size: Any) -> None: ...

    parameter = inspect.Parameter("size", inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
    _with(entry, annotation).__signature__ = inspect.Signature([parameter])
    return entry


SIZE = Annotated[float, Field(ge=1, le=9)]


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (SIZE, 0.0),
        (SIZE, 10),
        (SIZE, math.nan),
        (SIZE, None),
        (SIZE, "x"),
        (SIZE | None, 99.0),
        (list[SIZE], [1.0, 10.0]),
        (Annotated[list[SIZE], Field(min_length=2)], [1.0]),
        (list[SIZE], (1.0, 10.0)),
        (int, Field(0, ge=1, le=9)),
        (Annotated[int, Field(ge=1, le=9)], "2"),
        (Annotated[str, Field(min_length=1)], ""),
        (Literal["a", "b"], "c"),
        (bool, "maybe"),
    ],
)
def test_a_default_that_its_own_field_refuses_is_refused(annotation: Any, default: Any) -> None:
    (said,) = refused(lambda: register(with_default(annotation, default)))
    rule = "give its field size a default of its own type and range"
    got = show(default.default if isinstance(default, FieldInfo) else default)
    assert said == f"block.mine must {rule}, got {got}. Change the default, or the annotation."


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (SIZE, 1),
        (SIZE, 9.0),
        (SIZE | None, None),
        (list[SIZE], [1.0, 2.0]),
        (tuple[SIZE, ...], (1.0, 2.0)),
        (Literal["a", "b"], "b"),
        (bool, True),
    ],
)
def test_a_default_that_its_own_field_takes_is_taken(annotation: Any, default: Any) -> None:
    assert register(with_default(annotation, default))().model_dump() == {"size": default}


@pytest.mark.parametrize(
    ("annotation", "default", "size"), [(list[SIZE], (1.0, 2.0), (1.0, 2.0)), (int, Field(4, ge=1, le=9), 4)]
)
def test_a_default_may_be_a_tuple_for_a_list_or_stand_with_the_range(annotation: Any, default: Any, size: Any) -> None:
    assert register(with_default(annotation, default)).model_fields["size"].default == size


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_defaults_of_every_built_in_entry_are_as_those_of_plugins_must_be(kind: str) -> None:
    for name in BUILT_IN[kind]:
        assert list(signatures.wrong_defaults(kind, name, REGISTRIES[kind].section(name))) == []


def test_all_numbers_without_a_range_are_said_at_once() -> None:
    def entry(*, one: int, two: Annotated[int, Field(ge=0, le=1)], three: float = 1.0) -> None: ...

    fields = [said.partition("its field ")[2].partition(",")[0] for said in refused(lambda: register(entry))]
    assert fields == ["one", "three"]


def test_a_field_without_an_annotation_is_refused() -> None:
    def entry(*, size) -> None: ...

    (said,) = refused(lambda: register(entry))
    assert said.startswith("block.mine must have annotated fields, got: ")
    assert said.endswith(". Fix them.")


@pytest.mark.parametrize(("registry", "field"), [(BLOCKS, "block"), (OPTIMIZERS, "name"), (DATASETS, "name")])
def test_a_field_that_would_hide_the_name_of_the_entry_is_refused(registry: Registry[Any], field: str) -> None:
    namespace: dict[str, Any] = {"__name__": "somewhere"}
    exec(f"def entry(*, {field}: str = 'x'): ...", namespace)
    (said,) = refused(lambda: register(namespace["entry"], registry))
    assert said == f"{registry.kind}.mine must have no field called {field}, got one. Rename it."


def test_an_annotation_that_names_nothing_is_refused() -> None:
    def entry(*, size: Nowhere) -> None: ...  # noqa: F821

    (said,) = refused(lambda: register(entry))
    assert ".entry must have an annotation for size, got: name 'Nowhere' is not defined. Import the type at run" in said


def test_what_is_given_by_the_program_needs_no_annotation_that_can_be_resolved() -> None:
    def entry(epochs: Nowhere, *, flag: bool = False) -> Schedule:  # noqa: F821
        return Schedule(lambda step: (epochs, flag))

    section = register(entry, SCHEDULERS)
    assert section.model_fields.keys() == {"name", "update", "flag"}
    made = SCHEDULERS.make("mine", section(name="mine", flag=True), epochs=2, parameters=[1])
    assert made.lr(0) == (2, True)


def test_a_field_is_not_converted_and_nothing_unknown_is_taken() -> None:
    def entry(*, size: Annotated[int, Field(ge=1, le=9)] = 1) -> None: ...

    section = register(entry)
    for fields in ({"size": "2"}, {"size": 2.0}, {"size": 10}, {"other": 1}):
        with pytest.raises(ValueError, match="validation error"):
            section(**fields)
    assert section().size == 1


def test_a_check_of_an_entry_is_reported_at_its_field() -> None:
    def no(section: Any) -> None:
        raise FieldError("size", "be odd", section.size, "Change it.")

    @TRANSFORMS.register("wobble", check=no)
    def wobble(*, size: Annotated[int, Field(ge=1, le=9)]) -> Transform:
        return Transform(size, lambda images, draws: images)

    values = config_of().model_dump()
    values["augmentation"] = {"wobble": {"size": 2}}
    assert refused(lambda: parse(values)) == ("augmentation.wobble.size must be odd, got 2. Change it.",)


def test_a_check_of_an_entry_is_asked_whatever_its_kind() -> None:
    def no(section: Any) -> None:
        raise FieldError("size", "be odd", section.size, "Change it.")

    def mine(*, size: Annotated[int, Field(ge=1, le=9)] = 2) -> None: ...

    class Mine:
        def __init__(self, *, size: Annotated[int, Field(ge=1, le=9)] = 2) -> None: ...

        def info(self) -> DataInfo:
            return DataInfo((1, 28, 28), tuple("0123456789"), train_size=1437, test_size=360)

    message = "size must be odd, got 2. Change it."
    for kind, registry in REGISTRIES.items():
        registry.register("mine", check=no)(Mine if kind == "dataset" else mine)
        values = config_of().model_dump()
        if kind == "block":
            spec = {"block": "mine", "size": 2}
            assert list(layer_problems({"first": spec}, {})) == [f"model.layers.first.{message}"]
        elif kind == "launcher":
            composed = compose_sweep(Words(["hydra/launcher=mine"]))
            assert refused(lambda composed=composed: launcher_of(composed)) == (f"hydra.launcher.{message}",)
        else:
            (group,) = [name for name, chosen in GROUPS.items() if chosen is registry]
            extra = {"mean": [0.1], "std": [0.3]} if kind == "dataset" else {}
            values[group] = {"mine": {}} if group in LISTED else {"name": "mine", "size": 2, **extra}
            place = f"{group}.mine" if group in LISTED else group
            assert f"{place}.{message}" in refused(lambda values=values: parse(values)), kind


# Unknown names


UNKNOWN = [
    ("data=nope", "qmnist, svhn, got 'nope'. For images of your own, choose data=image_folder or data=npz."),
    ("data.name=nope", "qmnist, svhn, got 'nope'. Choose one: data.name=cifar10"),
    ("data=mnist data.name=mnits", "data.name must be one of cifar10, cifar100, digits, emnist, fashion_mnist, image_folder, kmnist, mnist, npz, qmnist, svhn, got 'mnits'. Did you mean mnist?"),
    ("optimizer.name=adamm", "optimizer.name must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got 'adamm'. Did you mean adam or adamw?"),
    ("scheduler.name=cosin", "scheduler.name must be one of constant, cosine, cyclic, exponential, multi_step, one_cycle, piecewise_linear, plateau, polynomial, step, warm_restarts, got 'cosin'. Did you mean cosine?"),
    ("scheduler.name=xyz", "got 'xyz'. Choose one: scheduler.name=constant"),
    ("+augmentation.rotat={degrees:1}", "trivial_augment, vertical_flip, got 'rotat'. Did you mean rotate?"),
    ("optimizer.name=1", "optimizer.name must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got 1. Choose one: optimizer.name=adadelta"),
    ("optimizer.name=[sgd]", "optimizer.name must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got ['sgd']."),
    ("optimizer.name=null", "optimizer.name must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got null."),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), UNKNOWN)
def test_an_unknown_name_has_the_known_ones_and_the_nearest(overrides: str, message: str) -> None:
    (said,) = refused(lambda: config_of(*overrides.split()))
    assert message in said


def test_an_unknown_block_has_the_known_ones_and_the_nearest() -> None:
    (said,) = refused(lambda: check_network(config_of("model.layers.conv1.block=convv")))
    assert f"model.layers.conv1.block must be one of {', '.join(BUILT_IN['block'])}, got 'convv'. Did you mean" in said


def test_every_unknown_name_is_said_at_once_with_all_else() -> None:
    values = config_of().model_dump()
    for key in ("data", "optimizer", "scheduler"):
        values[key] = {"name": "x"}
    values |= {"augmentation": {"x": {}, "rotate": {"degrees": 1.0}}, "seed": -1}
    keys = [said.split(" ")[0] for said in refused(lambda: parse(values))]
    assert sorted(keys) == [
        "augmentation", "augmentation.rotate", "data.name", "optimizer.name", "scheduler.name", "seed",
    ]  # fmt: skip


@pytest.mark.parametrize("key", GROUPS)
@pytest.mark.parametrize("value", [None, [], "mnist", 1, {}])
def test_a_choice_that_is_no_mapping_or_has_no_name_is_said(key: str, value: object) -> None:
    values = {**config_of().model_dump(), key: value}
    if key in LISTED and value == {}:
        assert getattr(parse(values), key).chosen() == {}
        return
    (said,) = refused(lambda: parse(values))
    assert said.startswith(
        f"{key}.name must be given, got nothing." if value == {} else f"{key} must be a mapping, got "
    )


# Files


PLUGIN = """
from typing import Annotated
from pydantic import Field
from torch import nn
from era_cnn.config.choices import BLOCKS, TRANSFORMS

@BLOCKS.register("squeeze")
class Squeeze(nn.Sequential):
    \"\"\"Fewer channels.\"\"\"
    def __init__(self, in_channels, *, ratio: Annotated[int, Field(ge=1, le=64, description="the reduction")] = 4):
        super().__init__(nn.Conv2d(in_channels, max(1, in_channels // ratio), 1))
"""


def plugin(text: str, name: str = "mine.py", folder: str = ".") -> str:
    path = Path(folder, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return str(path)


def registered() -> dict[str, list[str]]:
    return {kind: list(registry) for kind, registry in REGISTRIES.items()}


def test_a_file_registers_what_a_config_can_then_name() -> None:
    path = plugin(PLUGIN)
    load_plugins([path])
    assert "squeeze" in BLOCKS
    words = ["+model.layers.more={block: squeeze, ratio: 2}", "~model.layers.gap", "~model.layers.logits"]
    config = config_of(*words, "+model.layers.head={block: gap_head, projection: conv}", "target.max_params=null")
    check_network(config)
    (said,) = refused(lambda: check_network(config_of("+model.layers.last={block: squeeze, ratio: 65}")))
    assert said.startswith("model.layers.last.ratio must be at most 64, got 65. Give the reduction.")


def test_a_file_is_imported_once() -> None:
    path = plugin(PLUGIN + "with open('imported', 'a') as file: file.write('x')")
    load_plugins([path, path])
    load_plugins([str(Path(path).resolve())])
    assert Path("imported").read_text(encoding="utf-8") == "x"
    assert [Path(each.name).name for each in plugins.imported()][-1] == "mine.py"


def test_what_one_plugin_registered_another_cannot() -> None:
    load_plugins([plugin(PLUGIN)])
    (said,) = refused(lambda: load_plugins([plugin(PLUGIN + "# another", folder="other")]))
    assert said.startswith("In the plugin ")
    assert "block.squeeze must be registered once, got era_cnn_plugin_mine_" in said
    assert said.endswith(".Squeeze. Rename one of the two.")
    assert said.count(".Squeeze") == 2


def test_what_is_built_in_a_plugin_cannot_register() -> None:
    before = registered()
    (said,) = refused(lambda: load_plugins([plugin(PLUGIN.replace('"squeeze"', '"conv"'))]))
    assert (
        "block.conv must be registered once, got era_cnn.models.blocks.convolutions.Conv and era_cnn_plugin_mine_"
        in said
    )
    assert registered() == before
    assert BLOCKS["conv"].__module__ == "era_cnn.models.blocks.convolutions"


FAILURES = {
    "raise RuntimeError('of no use\\nat all')": "must be importable, got RuntimeError: of no use at all. Fix it, or leave it out.",
    "import nothing_of_that_name": "must be importable, got ModuleNotFoundError: No module named 'nothing_of_that_name'.",
    "raise SystemExit(3)": "must be importable, got SystemExit: 3.",
    "def f(:": "must be importable, got SyntaxError: ",
    "x = '\\0'.encode(1)": "must be importable, got TypeError: ",
    "BLOCKS.register('Wrong Name')": "The name of a block must be lower-case letters, digits and _",
    "@TRANSFORMS.register('wobble')\ndef wobble(*, size: int): ...": "transform.wobble must state a finite range of its field size, got int without one.",
    "@TRANSFORMS.register('wobble')\ndef wobble(*, size): ...": "transform.wobble must have annotated fields, got: ",
}  # fmt: skip


@pytest.mark.parametrize("end", FAILURES)
def test_of_a_plugin_that_fails_nothing_stays_and_it_can_be_fixed(end: str) -> None:
    before, modules = registered(), set(sys.modules)
    path = plugin(PLUGIN + end)
    (said,) = refused(lambda: load_plugins([path]))
    assert FAILURES[end] in said
    assert path in said
    assert registered() == before
    assert plugins.imported() == ()
    assert plugin_digests() == {}
    plugin(PLUGIN)
    load_plugins([path])
    assert "squeeze" in BLOCKS
    assert {name for name in sys.modules.keys() - modules if "torch" not in name}


@pytest.mark.process
def test_a_plugin_that_fails_first_of_all_takes_nothing_of_the_package_with_it() -> None:
    program = """
from era_cnn.config.choices import REGISTRIES, load_plugins
from era_cnn.errors import ConfigError, show
try:
    load_plugins(["mine.py"])
except ConfigError:
    print({kind: list(registry) for kind, registry in REGISTRIES.items()})
"""
    plugin(PLUGIN + "len(TRANSFORMS)\nraise RuntimeError")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(BUILT_IN)


def test_of_several_plugins_those_before_the_wrong_one_stay() -> None:
    first, second = plugin(PLUGIN), plugin("raise ValueError(1)", "other.py")
    refused(lambda: load_plugins([first, second]))
    assert "squeeze" in BLOCKS


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.py", "The plugin {cwd}/nowhere.py must be importable, got FileNotFoundError: "),
        ("folder.py", "The plugin {cwd}/folder.py must be importable, got IsADirectoryError: "),
        ("folder", "--plugin must be a file of Python code, got 'folder'. Give one that ends in .py."),
        ("text.txt", "--plugin must be a file of Python code, got 'text.txt'. Give one that ends in .py."),
        ("", "--plugin must be a file of Python code, got '.'."),
    ],
)
def test_what_is_no_file_of_python_is_refused(path: str, message: str) -> None:
    for name in ("folder", "folder.py"):
        Path(name).mkdir()
    Path("text.txt").write_text(PLUGIN, encoding="utf-8")
    (said,) = refused(lambda: load_plugins([path]))
    assert said.startswith(message.format(cwd=Path.cwd()))


def test_a_second_ctrl_c_is_not_taken_for_a_fault_of_the_plugin() -> None:
    with pytest.raises(KeyboardInterrupt):
        load_plugins([plugin(PLUGIN + "raise KeyboardInterrupt")])
    assert "squeeze" not in BLOCKS


def test_a_plugin_can_bring_a_folder_of_config_groups() -> None:
    load_plugins([plugin("CONFIG_DIR = '/there'"), plugin("", "without.py")])
    assert [each.config_dir for each in plugins.imported()] == ["/there", None]


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_kind_can_come_from_a_file(kind: str) -> None:
    load_plugins([plugin(f"from era_cnn.config.choices import {kind}\n@{kind}('mine')\ndef mine(): ...")])
    assert list(REGISTRIES[kind]) == sorted([*BUILT_IN[kind], "mine"])
    fields = {"name": "mine"} if issubclass(REGISTRIES[kind].base, Choice) else {}
    if kind == "dataset":
        fields |= {"mean": [0.0], "std": [1.0]}
    assert REGISTRIES[kind].section("mine").model_validate(fields)


# Digests of code


def test_a_plugin_has_one_digest_of_all_its_code_and_it_is_listed_by_entry() -> None:
    assert plugin_digests() == {}
    load_plugins([plugin(PLUGIN + "@TRANSFORMS.register('wobble')\ndef wobble(): ...")])
    assert plugin_digests().keys() == {"block.squeeze", "transform.wobble"}
    assert len(set(plugin_digests().values())) == 1


def digest_of(path: str) -> str:
    with nothing_stays_registered():
        before = set(sys.modules)
        load_plugins([path])
        found = plugin_digests()["block.squeeze"]
        for name in sys.modules.keys() - before:
            if name.startswith((plugins.PREFIX, "helper_")):
                del sys.modules[name]
        return found


def test_the_digest_changes_with_the_file_and_with_what_it_imports_from_its_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = plugin("import helper_one\n" + PLUGIN)
    helper, unused = tmp_path / "helper_one.py", tmp_path / "helper_unused.py"
    helper.write_text("import json, colorsys\n", encoding="utf-8")
    unused.write_text("", encoding="utf-8")
    first = digest_of(path)
    assert digest_of(path) == first
    unused.write_text("x = 1", encoding="utf-8")
    assert digest_of(path) == first
    helper.write_text("import json, colorsys\nx = 1\n", encoding="utf-8")
    second = digest_of(path)
    plugin("import helper_one\n" + PLUGIN + "\n# more\n")
    assert len({first, second, digest_of(path)}) == 3


def test_the_digest_does_not_depend_on_where_the_file_lies() -> None:
    assert digest_of(plugin(PLUGIN)) == digest_of(plugin(PLUGIN, folder="elsewhere"))


def test_what_was_registered_by_hand_has_the_digest_of_its_source() -> None:
    @TRANSFORMS.register("wobble")
    def wobble() -> None: ...

    first = plugin_digests()["transform.wobble"]
    assert plugin_digests() == {"transform.wobble": first}
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def wobble(): ...", namespace)
    TRANSFORMS.restore({})
    TRANSFORMS.register("wobble")(namespace["wobble"])
    assert plugin_digests()["transform.wobble"] != first  # its source is not known, its name is


# Entry points


def test_an_installed_plugin_is_listed_without_being_imported(install: Callable[..., None]) -> None:
    install(
        "demo", {"block.squeeze": "demo_blocks", "transform.wobble": "demo_blocks:wobble"}, demo_blocks="raise OSError"
    )
    assert "squeeze" in BLOCKS
    assert "wobble" in TRANSFORMS
    assert "wobble" not in BLOCKS
    assert list(BLOCKS) == sorted([*BUILT_IN["block"], "squeeze"])
    assert len(TRANSFORMS) == len(BUILT_IN["transform"]) + 1
    (said,) = refused(lambda: check_network(config_of("model.layers.conv1.block=squeeeze")))
    assert "squeeze, squeeze_excite, transition, got 'squeeeze'. Did you mean squeeze?" in said
    assert "demo_blocks" not in sys.modules
    assert BLOCKS["conv"]
    assert BLOCKS.section("gap_head")
    assert "demo_blocks" not in sys.modules


def test_an_installed_plugin_is_imported_when_it_is_used_and_no_other_is(install: Callable[..., None]) -> None:
    install("demo", {"block.squeeze": "demo_blocks"}, demo_blocks=PLUGIN)
    install("demo2", {"block.other": "demo_other"}, demo_other="raise RuntimeError(1)")
    words = ["+model.layers.more={block: squeeze, ratio: 1}", "~model.layers.gap"]
    check_network(config_of(*words, "+model.layers.head={block: gap_head}", "target.max_params=null"))
    assert BLOCKS["squeeze"].__module__ == "demo_blocks"
    assert "demo_other" not in sys.modules
    assert plugin_digests().keys() == {"block.squeeze"}
    (said,) = refused(lambda: BLOCKS["other"])
    assert said == (
        "The plugin demo_other of the package demo2 must be importable, got RuntimeError: 1. Update the package, or uninstall it."
    )
    assert "squeeze" in BLOCKS


def test_an_installed_plugin_that_fails_leaves_nothing(install: Callable[..., None]) -> None:
    install("demo", {"block.squeeze": "demo_blocks"}, demo_blocks=PLUGIN + "raise ValueError('late')")
    assert "got ValueError: late." in refused(lambda: BLOCKS["squeeze"])[0]
    assert "squeeze" not in BLOCKS.imported()
    assert plugins.imported() == ()


def test_a_plugin_that_does_not_register_its_name_is_refused(install: Callable[..., None]) -> None:
    install("demo", {"optimizer.lion": "demo_blocks"}, demo_blocks=PLUGIN)
    assert refused(lambda: config_of("optimizer.name=lion")) == (
        "The plugin of optimizer.lion must register it, got demo_blocks of the package demo, which does not. Uninstall it.",
    )


def test_a_plugin_that_takes_a_built_in_name_is_refused_when_it_is_used(install: Callable[..., None]) -> None:
    text = PLUGIN + "@BLOCKS.register('conv')\nclass Conv: ...\n"
    install("demo", {"block.squeeze": "demo_blocks"}, demo_blocks=text)
    (said,) = refused(lambda: BLOCKS["squeeze"])
    assert said.startswith(
        "In the plugin demo_blocks of the package demo: block.conv must be registered once, got era_cnn.models.blocks.convolutions.Conv"
    )
    assert "squeeze" not in BLOCKS.imported()


def test_a_name_of_two_installed_plugins_is_refused_where_it_is_used(install: Callable[..., None]) -> None:
    install("demo", {"block.squeeze": "demo_blocks"}, demo_blocks=PLUGIN)
    install("demo2", {"block.squeeze": "demo_other", "block.other": "demo_other"}, demo_other=PLUGIN)
    assert list(BLOCKS) == sorted([*BUILT_IN["block"], "other", "squeeze"])
    assert BLOCKS["conv"]
    (said,) = refused(lambda: BLOCKS["squeeze"])
    assert said.startswith("block.squeeze must be registered once, got demo_")
    assert said.endswith(". Uninstall all but one.")
    assert "demo_blocks of the package demo and " in said or said.endswith("demo. Uninstall all but one.")
    assert "demo_other of the package demo2" in said
    assert {"demo_blocks", "demo_other"}.isdisjoint(sys.modules)


def test_an_installed_plugin_of_a_built_in_name_is_refused_where_it_is_used(install: Callable[..., None]) -> None:
    install("demo", {"optimizer.adam": "demo_adam"})
    assert config_of("optimizer=sgd", "seed=2")
    assert refused(lambda: parse({**config_of().model_dump(), "optimizer": {"name": "adam"}})) == (
        "optimizer.adam must be registered once, got era_cnn.training.optimizers.adam and demo_adam of the package demo. "
        "Uninstall the package demo.",
    )


def test_a_slip_in_a_key_is_not_blamed_on_an_installed_plugin(install: Callable[..., None]) -> None:
    install("demo", {"optimizer.lion": "demo_gone", "optimizer.adam": "demo_gone", "scheduler.mine": "demo_gone"})
    install("demo2", {"optimizer.lion": "demo_other"})
    for key, message in {
        "optimizer.lrr": "optimizer.lrr must be a key of the config, got 1. Did you mean optimizer.lr?",
        "scheduler.pct_start": "scheduler.pct_start must be a key of the config, got 1. It belongs to one_cycle: "
        "choose scheduler=one_cycle.",
        "optimizer.betas": "optimizer.betas must be a key of the config, got 1. It belongs to adam, adamw, muon, nadam, "
        "radam: choose optimizer=adam or optimizer=adamw or optimizer=muon or optimizer=nadam or optimizer=radam.",
    }.items():
        assert refused(lambda key=key: config_of(f"{key}=1")) == (message,)


def test_an_installed_plugin_that_is_there_twice_is_one(install: Callable[..., None]) -> None:
    install("demo", {"block.squeeze": "demo_blocks"}, demo_blocks=PLUGIN)
    install("demo_editable", {"block.squeeze": "demo_blocks"})
    assert BLOCKS["squeeze"].__name__ == "Squeeze"


KINDS = ", ".join(plugins.POINT_KINDS)


def test_entry_points_have_the_kinds_of_registries() -> None:
    assert set(plugins.POINT_KINDS) == {*REGISTRIES, "config"}


@pytest.mark.parametrize(
    ("point", "value", "fault"),
    [
        ("squeeze", "demo_blocks", f"be called KIND.NAME, with one of the kinds {KINDS}, got 'squeeze'"),
        ("blocks.squeeze", "demo_blocks", f"be called KIND.NAME, with one of the kinds {KINDS}, got 'blocks.squeeze'"),
        ("Block.squeeze", "demo_blocks", f"be called KIND.NAME, with one of the kinds {KINDS}, got 'Block.squeeze'"),
        ("block", "demo_blocks", f"be called KIND.NAME, with one of the kinds {KINDS}, got 'block'"),
        ("block.", "demo_blocks", f"be called KIND.NAME, with one of the kinds {KINDS}, got 'block.'"),
        ("block.Bad-Name", "demo_blocks", "have a name of lower-case letters, digits and _, got 'Bad-Name'"),
        ("transform.a.b", "demo_blocks", "have a name of lower-case letters, digits and _, got 'a.b'"),
        ("block.squeeze", "no module", "name a module, got 'no module'"),
        ("config.mine", "demo_blocks", "name a package of config groups, got 'demo_blocks'"),
        ("config.mine", "demo_nowhere.conf", "name a package of config groups, got 'demo_nowhere.conf'"),
        ("config.mine", "tests.nowhere", "name a package of config groups, got 'tests.nowhere'"),
    ],
)
def test_an_entry_point_that_can_not_be_used_is_ignored_with_a_notice(
    point: str, value: str, fault: str, install: Callable[..., None]
) -> None:
    install("demo", {point: value, "transform.wobble": "demo_blocks"}, demo_blocks="raise OSError")
    ignored = "It is ignored: update the package, or uninstall it."
    assert plugins.faults() == [f"The entry point {point} of the package demo must {fault}. {ignored}"]
    assert registered() == {**BUILT_IN, "transform": sorted([*BUILT_IN["transform"], "wobble"])}
    assert plugins.config_folders() == []
    assert "demo_blocks" not in sys.modules


def test_packages_of_config_groups_are_searched_in_the_order_of_their_names(install: Callable[..., None]) -> None:
    install("demo", {"config.mine": "tests.sweeps"})
    install("demo2", {"config.mine": "tests.folders", "config.other": "tests.sweeps", "launcher.mine": "demo"})
    assert plugins.faults() == []
    assert plugins.config_folders() == ["pkg://tests.folders", "pkg://tests.sweeps"]


@pytest.mark.parametrize("text", ["import demo_missing", "raise OSError('no')", "raise SystemExit(3)"])
def test_config_groups_that_can_not_be_imported_are_ignored_with_one_notice(
    text: str, install: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site" / "demo_groups" / "conf").mkdir(parents=True)
    (tmp_path / "site" / "demo_groups" / "__init__.py").write_text(text, encoding="utf-8")
    install("demo", {"config.mine": "demo_groups.conf"})
    for _ in range(2):
        assert validated(compose(Words()))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("The config groups demo_groups.conf of the package demo must be importable, got ")
    assert said.endswith(". They are ignored: update the package, or uninstall it.")


def test_a_package_counts_with_all_of_its_files(install: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "site" / "demo_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "blocks.py").write_text("from demo_package import tools\n" + PLUGIN, encoding="utf-8")
    (folder / "tools.py").write_text("", encoding="utf-8")
    install("demo", {"block.squeeze": "demo_package.blocks"})
    assert BLOCKS["squeeze"]
    (found,) = plugins.imported()
    assert {Path(file).name for file in found.files} == {"__init__.py", "blocks.py", "tools.py"}
    assert plugin_digests() == {"block.squeeze": found.sha256}


@pytest.mark.parametrize("registry", [DATASETS, SCHEDULERS, OPTIMIZERS], ids=lambda registry: registry.kind)
def test_a_config_names_an_installed_choice(registry: Registry[Any], install: Callable[..., None]) -> None:
    text = f"from era_cnn.config.choices import {registry.kind}\n@{registry.kind}('mine')\ndef mine(): ..."
    install("demo", {f"{registry.kind}.mine": "demo_choice"}, demo_choice=text)
    key = next(key for key, each in GROUPS.items() if each is registry)
    said = refused(lambda: parse({**config_of().model_dump(), key: {"name": "mine", "x": 1}}))
    assert f"{key}.x must be a key of {key} (name" in " ".join(said)


def test_a_helper_that_two_plugins_share_is_part_of_the_digest_of_both(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "helper_shared.py").write_text("FACTOR = 2.0\n", encoding="utf-8")
    text = (
        "from helper_shared import FACTOR\nimport helper_shared\nimport era_cnn\n\n"
        "@era_cnn.scheduler('NAME')\ndef schedule():\n    return lambda step: FACTOR\n"
    )
    for name in ("demo_one", "demo_two"):
        (tmp_path / f"{name}.py").write_text(text.replace("NAME", name), encoding="utf-8")
    digests = []
    for factor in ("2.0", "3.0"):
        (tmp_path / "helper_shared.py").write_text(f"FACTOR = {factor}\n", encoding="utf-8")
        sys.modules.pop("helper_shared", None)
        with nothing_stays_registered():
            load_plugins([str(tmp_path / "demo_one.py"), str(tmp_path / "demo_two.py")])
            digests.append([plugin_digests()[f"scheduler.{name}"] for name in ("demo_one", "demo_two")])
            for name in ("demo_one", "demo_two"):
                plugins.forget(tmp_path / f"{name}.py")
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] != digests[1][1]
