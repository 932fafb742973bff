"""What the README tells a reader to type works, and what it says of the networks is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from era_cnn.cli import VERBS
from era_cnn.compose.composition import compose, compose_typed, validated
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words, parse_words
from era_cnn.config.choices import BLOCKS
from era_cnn.config.parsing import parse
from era_cnn.models.build import build_network, check_network
from era_cnn.models.summary import summarise
from era_cnn.sweeps.options import sweep_options
from era_cnn.sweeps.search import plan_corners
from tests.conftest import GREY_EXPERIMENTS, config_of
from tests.data.folders import TWO_SPLITS, make_folder
from tests.helpers import GREY, nothing_stays_registered
from tests.models.test_blocks import INHERITED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks_of("bash") for line in block.splitlines() if line.startswith("era-cnn ")]


def test_nothing_was_left_to_be_filled_in() -> None:
    words = set(re.findall(r"\b[A-Z][A-Z0-9]{3,}\b", README))
    assert words <= {
        "MNIST",
        "KMNIST",
        "QMNIST",
        "EMNIST",
        "CIFAR",
        "JPEG",
        "WebP",
        "TIFF",
        "EXIF",
        "YAML",
        "CUDA",
        "H200",
        "NVIDIA",
        "NAME",
        "PYTHON",
        "SIGHUP",
        "SIGTERM",
        "SIGUSR1",
        "SIGUSR2",
        "HOME",
        "OMP_WAIT_POLICY",
        "SWEEP",
        "FOLDER",
        "CONTRIBUTING",
        "CHANGELOG",
        "README",
    }


def test_the_readme_has_its_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_is_understood(line: str) -> None:
    make_folder(Path("my_images"), TWO_SPLITS)
    words = shlex.split(line, comments=True)[1:]
    if (words[0] in VERBS and words[0] != "describe") or words == ["--help"]:
        return  # tested where they are
    args = parse_words(words[1:] if words[0] == "describe" else words)
    if words[0] == "describe":
        check_network(validated(compose(Words.of(args))))
        return
    composed, is_sweep = compose_typed(Words.of(args), args)
    if not is_sweep:
        check_network(validated(composed))
        return
    planner = Planner(Words.of(args), composed)
    search = sweep_options(composed).search
    for job in plan_corners(search, planner) if search else planner.plan(planner.grid()):
        check_network(job.config)


def test_the_model_of_the_readme_can_be_built() -> None:
    (text,) = blocks_of("yaml")
    model = yaml.safe_load(text)
    config = parse({**config_of("~experiment").model_dump(), "model": model})
    check_network(config)


def test_the_block_of_the_readme_can_be_registered_and_used() -> None:
    text = next(each for each in blocks_of("python") if "@era_cnn.block" in each)
    with nothing_stays_registered():
        exec(text, {"__name__": "of_the_readme"})
        layers = {"first": {"block": "squeeze", "ratio": 1}, "gap": {"block": "gap_head", "projection": "conv"}}
        assert build_network(layers, INHERITED, seed=1, info=GREY)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_every_block_and_its_fields_stand_in_the_readme() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (.*) \|$", README, re.MULTILINE)
    documented = {name: fields for names, fields in rows for name in re.findall(r"`(\w+)`", names)}
    for block in BLOCKS:
        for field in BLOCKS.section(block).model_fields:
            assert re.search(rf"\b{field}\b", documented[block]), f"{block}.{field}"


def test_the_table_of_the_networks_is_that_of_the_configs() -> None:
    rows = {
        row[0]: row[1:]
        for row in re.findall(r"^\| `(model_\w+)` \| ([\d,]+) \| (\d+) px \| (\d+) \| (\d+) \|", README, re.M)
    }
    assert set(rows) == set(GREY_EXPERIMENTS) - {"model_4_digits"}
    for experiment, (params, field, epochs, batch_size) in rows.items():
        config = config_of(f"experiment={experiment}")
        with torch.device("meta"):
            summary = summarise(
                build_network(config.model.layers, config.model.inherited(), seed=1, info=config.info),
                config.info.shape,
            )
        assert f"{summary.params:,}" == params
        assert (summary.receptive_field, config.trainer.epochs, config.trainer.batch_size) == (
            int(field), int(epochs), int(batch_size),
        )  # fmt: skip
