"""What the README and the pages tell a reader to type works, and what they say of the networks is so."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from docs import generate
from era_cnn.cli import VERBS
from era_cnn.compose.composition import compose_typed, validated
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words, parse_words
from era_cnn.config.choices import REGISTRIES, load_plugins
from era_cnn.models.build import build_from_config, build_network, check_network
from era_cnn.sweeps import launchers
from era_cnn.sweeps.options import sweep_options
from era_cnn.sweeps.search import plan_corners
from era_cnn.verbs.line import Line, read_line
from tests.conftest import GREY_EXPERIMENTS, config_of
from tests.data.folders import TWO_SPLITS, make_folder
from tests.helpers import GREY, nothing_stays_registered
from tests.models.test_blocks import INHERITED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = ROOT / "docs" / "recipes.md"
"""Its lines are trained, by tests/test_recipes_page.py."""

PAGES = [
    ROOT / "README.md",
    *sorted({*(ROOT / "docs").rglob("*.md")} - {*(ROOT / "docs" / "reference").rglob("*.md"), RECIPES}),
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
LINKING = sorted(
    {
        *PAGES,
        *ROOT.glob("*.md"),
        *(each for name in ("experiments", "benchmarks") for each in (ROOT / name).rglob("*.md")),
    }
)


def blocks_of(language: str) -> list[str]:
    """The blocks of code in a language, of all pages."""
    return [
        each for text in TEXTS.values() for each in re.findall(rf"```{language}(?: .*?)?\n(.*?)```", text, re.DOTALL)
    ]


COMMANDS = sorted({line for block in blocks_of("bash") for line in block.splitlines() if line.startswith("era-cnn ")})
PATTERN = r'```(?:python|yaml) title="(\S+)"\n(.*?)```'
FILES = {path: text for page in TEXTS.values() for path, text in re.findall(PATTERN, page, re.DOTALL)}
"""The files that the reader writes, by their paths."""


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 800


def test_percentages_are_written_alike() -> None:
    texts = [*PAGES, RECIPES, *(ROOT / "experiments").rglob("*.md"), *(ROOT / "conf").rglob("*.yaml")]
    code = [each for kind in ("*.py", "*.html", "*.md") for each in (ROOT / "era_cnn").rglob(kind)]
    patterns = {r"\d %": texts, r"[])}\d] %(?! [\w(])(?!\})": code}  # in code, what follows may be a remainder
    assert len(texts) > 40
    assert len(code) > 150
    found = [path for spaced, paths in patterns.items() for path in paths if re.search(spaced, path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    generated = {f"{name}.md" for name in generate.PAGES}
    missing = [
        link
        for link in links
        if not (page.parent / link).exists()
        and not (Path(link).parent.name == "reference" and Path(link).name in generated)
    ]
    assert missing == []


def test_every_file_on_a_page_has_its_name() -> None:
    titled = [path for text in TEXTS.values() for path, _ in re.findall(PATTERN, text, re.DOTALL)]
    assert sum(text.count("```yaml") for text in TEXTS.values()) == sum(path.endswith(".yaml") for path in titled)


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_every_page_can_be_reached(start: str) -> None:
    linked = {((ROOT / start).parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)", TEXTS[start])}
    pages = {*PAGES, RECIPES} - {ROOT / "README.md", ROOT / "docs" / "index.md"}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - linked) == []


@pytest.mark.parametrize("page", generate.PAGES)
def test_a_generated_page_describes_everything(page: str) -> None:
    if page == "experiments":
        return  # it takes long, and `era-cnn models` is tested
    text = generate.PAGES[page]()
    assert text.startswith("# ")
    assert "| None |" not in text, "a field has no description"
    assert "\n\n\n\n" not in text


def test_every_entry_has_a_docstring() -> None:
    silent = [
        f"{kind}.{name}" for kind, registry in REGISTRIES.items() for name in registry if not registry[name].__doc__
    ]
    assert silent == []


def test_the_site_lists_every_page() -> None:
    listed = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    written = {str(path.relative_to(ROOT / "docs")) for path in [*PAGES[1:], RECIPES]}
    assert listed == written | {f"reference/{name}.md" for name in generate.PAGES}


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 30


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "which", lambda program: program)  # Slurm may not be here, or be down
    monkeypatch.setattr(launchers, "SLURM_QUESTION", ("true",))
    make_folder(Path("my_images"), TWO_SPLITS)
    for path, text in FILES.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    typed = read_line(shlex.split(line, comments=True)[1:], VERBS)
    if (typed.verb and typed.verb != "describe") or "--help" in typed.words:
        return  # tested where they are
    with nothing_stays_registered():
        if typed.plugins:
            load_plugins(typed.plugins)
        check_command(typed)


def check_command(typed: Line) -> None:
    """Composes what a command line asks for, and builds each of its networks."""
    args = parse_words([word for word in typed.words if word != "--profile"])
    words = Words.of(args).in_folder(typed.config_dir)
    composed, is_sweep = compose_typed(words, args)
    if not is_sweep:
        check_network(validated(composed))
        return
    planner = Planner(words, composed)
    search = sweep_options(composed).search
    for job in plan_corners(search, planner) if search else planner.plan(planner.grid()):
        check_network(job.config)


def test_the_block_of_the_page_can_be_registered_and_used() -> None:
    with nothing_stays_registered():
        exec(FILES["my_blocks.py"], {"__name__": "of_the_page"})
        layers = {"first": {"block": "squeeze", "ratio": 1}, "gap": {"block": "gap_head", "projection": "conv"}}
        assert build_network(layers, INHERITED, seed=1, info=GREY)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_the_other_entries_of_the_page_train(command, tmp_path: Path) -> None:
    Path("my_parts.py").write_text(FILES["my_parts.py"], encoding="utf-8")
    own = (word for line in COMMANDS if "my_parts.py" in line for word in shlex.split(line)[1:])
    words = [*dict.fromkeys(own), "trainer.limit_epochs=2", "threads=1", "report=false", "hydra.run.dir=run"]
    with nothing_stays_registered():
        code, _, err = command(*words)
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["final_test_accuracy"] > 0.5, "chance is 0.1"


def test_the_listener_of_the_page_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (each for each in blocks_of("python") if "era_cnn.Listener" in each)
    exec(code, {"__name__": "of_the_page"})
    assert re.search(r"^Epoch 1: \d\.\d{4}\n.*^Epoch 2: ", capsys.readouterr().out, re.MULTILINE | re.DOTALL)


def test_the_table_of_the_networks_is_that_of_the_configs() -> None:
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (\w+) \| ([\d,]+) \| (\d+) \| \d+ \|", README, re.M)}
    assert {"model_3", "model_4"} <= set(rows) <= set(GREY_EXPERIMENTS)
    for experiment, (params, epochs) in rows.items():
        config = config_of(f"experiment={experiment}")
        with torch.device("meta"):
            network = build_from_config(config)
        assert f"{sum(each.numel() for each in network.parameters()):,}" == params
        assert config.trainer.epochs == int(epochs)
