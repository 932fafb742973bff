"""Writes the reference pages into docs/reference/, from the code and the config files. `make docs` runs it."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

import era_cnn
from era_cnn import cli
from era_cnn.compose.words import Words
from era_cnn.config.choices import BLOCKS, DATASETS, LAUNCHERS, LOGGERS, OPTIMIZERS, SCHEDULERS, TRANSFORMS, Registry
from era_cnn.config.groups import LISTED
from era_cnn.config.keys import FILLED_IN, values_allowed
from era_cnn.config.network import ModelConfig
from era_cnn.config.schema import RunConfig, Target
from era_cnn.config.trainer import EarlyStopping, TrainerConfig
from era_cnn.sweeps.options import OptunaSweeper, SweepConfig
from era_cnn.use.catalogue import catalogue, catalogue_table

DOCS = Path(__file__).parent
CONF = DOCS.parent / "conf"


# From schemas to tables


def fields_of(model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """A table of the fields of a section; `values` are the defaults of its YAML file, which win over the schema's."""
    rows, schema = [], model.model_json_schema()["properties"]
    for name, allowed in values_allowed(model).items():
        if name in HIDDEN:
            continue
        default, text = (
            values.get(name, schema[name].get("default", REQUIRED)),
            str(model.model_fields[name].description),
        )
        rows.append(f"| `{name}` | {_shown(default)} | {_cell(allowed)} | {_cell(text)} |")
    return "\n".join(["| key | default | values | meaning |", "|---|---|---|---|", *rows]) if rows else "No fields."


REQUIRED = object()
GROUPS = {"data", "augmentation", "model", "optimizer", "scheduler", "trainer", "target", "early_stopping", "layers"}
HIDDEN = {*GROUPS, *FILLED_IN, "name"}
"""Fields that the program fills in, and those that have a table of their own."""


def _shown(value: object) -> str:
    if value is REQUIRED or value == "???":
        return "to be given"
    return f"`{_cell(value if isinstance(value, str) else json.dumps(value))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _paragraphs(entry: Callable[..., Any]) -> str:
    return inspect.cleandoc(entry.__doc__ or "")


# The pages


def choices_page(title: str, introduction: str, registry: Registry[Any], group: str = "") -> str:
    """A page with a section for each entry of a registry."""
    parts = [f"# {title}", introduction]
    for name in registry:
        path = CONF / group / f"{name}.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8")) if group and path.exists() else {}
        values = values.get(name, values) if group in LISTED else values
        parts += [f"## {name}", _paragraphs(registry[name]), fields_of(registry.section(name), values or {})]
    return "\n\n".join(parts)


def config_page() -> str:
    """The keys of a run that belong to no group of choices, and those of a sweep."""
    base = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    trainer = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text(encoding="utf-8"))
    sections: Sequence[tuple[str, str, type[BaseModel], Mapping[str, Any]]] = (
        ("The run", "Top-level keys. The groups have pages of their own.", RunConfig, base),
        (
            "trainer",
            "How long a network is trained, and what happens to loss, gradients and weights.",
            TrainerConfig,
            trainer,
        ),
        ("trainer.early_stopping", "", EarlyStopping, trainer["early_stopping"]),
        ("target", "What an experiment must keep to, and what it tries to reach.", Target, base["target"]),
        ("model", "What holds for every layer that does not set it itself.", ModelConfig, {}),
        ("sweep", "How a sweep handles failures and existing results.", SweepConfig, base["sweep"]),
        ("hydra.sweeper", "With `hydra/sweeper=optuna`.", OptunaSweeper, {}),
    )
    parts = ["# Every key", "Each key can be set on the command line (`trainer.epochs=5`) or in a YAML file."]
    for name, text, model, values in sections:
        parts += [f"## {name}", *([text] if text else []), fields_of(model, values)]
    return "\n\n".join(parts)


def commands_page() -> str:
    """The help of every command."""
    text = (CONF / "hydra" / "help" / "era_cnn.yaml").read_text(encoding="utf-8")
    table = re.search(r"== Commands ==\n(.*?)\n\s*== ", text, re.DOTALL)
    assert table is not None
    parts = ["# Commands", f"```text\n{inspect.cleandoc(table[1])}\n```"]
    parts += [f"## {verb}\n\n```text\n{help_of(verb)}\n```" for verb in cli.VERBS]
    return "\n\n".join(parts)


def help_of(verb: str) -> str:
    """What `era-cnn VERB --help` prints."""
    from contextlib import redirect_stdout, suppress
    from io import StringIO

    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        cli.main([verb, "--help"])
    return printed.getvalue().rstrip()


def experiments_page() -> str:
    """Every experiment, with the header of its file."""
    table = catalogue_table(catalogue(Words([])).entries)
    parts = ["# Experiments", "What `era-cnn models` prints:", f"```text\n{table}\n```"]
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        header = " ".join(line.lstrip("# ") for line in _leading(lines) if "@package" not in line)
        parts += [f"## {path.stem}", header, "```yaml\n" + "\n".join(lines) + "\n```"]
    return "\n\n".join(parts)


def _leading(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("#"):
            return
        yield line


def python_page() -> str:
    """The public Python API."""
    parts = ["# Python", "Everything that `import era_cnn` offers. Nothing is imported before its first use."]
    for name in era_cnn.__all__:
        value = getattr(era_cnn, name)
        parts.append(f"## {name}")
        if inspect.isfunction(value):
            parts.append(f"```python\nera_cnn.{name}{inspect.signature(value)}\n```")
        parts.append(_docstring(value))
        if inspect.isclass(value) and value.__module__.startswith("era_cnn."):
            parts += list(_members(name, value))
    return "\n\n".join(parts)


def _members(owner: str, cls: type) -> Iterator[str]:
    for name, value in vars(cls).items():
        if name.startswith("_") or not inspect.getdoc(value):
            continue
        if isinstance(value, property):
            yield f"**`{owner}.{name}`**: {_docstring(value)}"
        elif inspect.isfunction(value):
            yield f"**`{owner}.{name}{inspect.signature(value)}`**\n\n{_docstring(value)}"


def _docstring(value: object) -> str:
    """A docstring as Markdown: its sections become lists."""
    text = inspect.getdoc(value) or ""
    text = re.sub(r"^(Args|Raises|Returns):$", r"*\1*\n", text, flags=re.M)
    text = re.sub(r"\n(    )(?=\S+: )", "\n- ", text)
    return re.sub(r"\n {4,}(?=\S)", "\n  ", text)


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands_page,
    "keys": config_page,
    "experiments": experiments_page,
    "data": lambda: choices_page(
        "Data sets", "Chosen with `data=NAME`. `mean` and `std` are those of each channel, scaled to [0, 1].",
        DATASETS, "data",
    ),
    "blocks": lambda: choices_page(
        "Blocks", "What a layer of `model.layers` can be: `{block: NAME, …}`. Options such as norm, activation and "
        "dropout are those of the model where a layer does not set them.", BLOCKS,
    ),
    "transforms": lambda: choices_page(
        "Transforms", "Chosen with `augmentation=NAME` or `'augmentation=[NAME,NAME]'`, applied in that order to the "
        "training images. Each image draws its own random numbers.", TRANSFORMS, "augmentation",
    ),
    "optimizers": lambda: choices_page("Optimizers", "Chosen with `optimizer=NAME`.", OPTIMIZERS, "optimizer"),
    "schedules": lambda: choices_page(
        "Learning-rate schedules", "Chosen with `scheduler=NAME`. `optimizer.lr` is the highest learning rate.",
        SCHEDULERS, "scheduler",
    ),
    "launchers": lambda: choices_page(
        "Launchers", "Where the jobs of a sweep run: `hydra/launcher=NAME`. Besides `basic` and `local`, which need "
        "nothing else, there are plugins.", LAUNCHERS, "hydra/launcher",
    ),
    "loggers": lambda: choices_page(
        "Loggers", "Chosen with `logger=NAME` or `'logger=[NAME,NAME]'`; none by default.", LOGGERS, "logger"
    ),
    "python": python_page,
}  # fmt: skip


def main(folder: Path) -> None:
    """Writes all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text(page() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else DOCS / "reference")
