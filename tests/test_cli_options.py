"""The options that may stand before and behind a verb."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

import era_cnn
from era_cnn.cli import VERBS
from era_cnn.compose.words import Words
from era_cnn.errors import ConfigError
from era_cnn.sweeps.executor import Manner
from era_cnn.sweeps.worker import do_job
from era_cnn.verbs.line import read_line

COMPLETED = Path(__file__).parent / "folders" / "schema_1" / "completed"
SMALL = ["data=digits", "trainer=smoke", "threads=1", "trainer.limit_train_images=64", "trainer.limit_test_images=50"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the user's own configs, and a file of code."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [model_4]\nname: mine\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "blocks.py").write_text("", encoding="utf-8")
    return tmp_path / "own"


@pytest.mark.parametrize("verb", ["", *VERBS])
@pytest.mark.parametrize("option", ["--config-dir", "-cd"])
def test_options_may_stand_anywhere(verb: str, option: str, own: Path) -> None:
    words = [verb] if verb else []
    plugin = str(own.parent / "blocks.py")
    for typed in (
        [option, "own", "--plugin", "blocks.py", *words, "a", "-c", "job"],
        [*words, "a", f"{option}=own", "-c", "job", "--plugin=blocks.py"],
        [*words, "a", "-c", "job", option, "own", "--plugin", "blocks.py"],
        ["--plugin", "blocks.py", *words, "a", option, "own", "-c", "job"],
    ):
        line = read_line(typed, VERBS)
        assert (line.verb, line.words, line.config_dir, line.plugins) == (verb, ("a", "-c", "job"), "own", (plugin,))
        assert line.command == ["era-cnn", *typed]


def test_plugins_may_be_several_and_keep_their_order(own: Path, tmp_path: Path) -> None:
    (tmp_path / "more.py").touch()
    line = read_line(["--plugin", "more.py", "seed=1", "--plugin", "blocks.py"], VERBS)
    assert [Path(path).name for path in line.plugins] == ["more.py", "blocks.py"]
    assert all(map(os.path.isabs, line.plugins))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--plugin"], "--plugin must be followed by a path, got nothing."),
        (["models", "--config-dir"], "--config-dir must be followed by a path, got nothing."),
        (["--plugin", "nope.py", "models"], "--plugin must be a file that can be read, got 'nope.py'. Check the path."),
        (["models", "--plugin", "own"], "--plugin must be a file that can be read, got 'own'."),
        (["-cd", "nope", "data", "digits"], "--config-dir must be a folder, got 'nope'. Create it."),
        (["--config-dir", "own", "models", "-cd", "."], "--config-dir must be given once, got it twice. Remove one."),
        (["--config-dir=own", "--config-dir=own"], "--config-dir must be given once, got it twice. Remove one."),
        (["replay", "x", "--epochs", "1", "--epochs=2"], "--epochs must be given once, got it twice. Remove one."),
        (["--cfg", "job", "--cfg=hydra"], "--cfg must be given once, got it twice. Remove one."),
    ],
)
def test_options_that_name_nothing_are_refused(typed: list[str], message: str, command, own: Path) -> None:
    code, out, err = command(*typed)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    with pytest.raises(ConfigError, match="must"):
        read_line(typed, VERBS)


@pytest.mark.slow
def test_a_folder_of_ones_own_counts_for_each_verb(command, own: Path, tmp_path: Path) -> None:
    for typed in (["--config-dir", "own", "models", "--json"], ["models", "-cd", "own", "--json"]):
        assert "mine" in [entry["experiment"] for entry in json.loads(command(*typed)[1])]
    assert command("-cd", "own", "describe", "experiment=mine")[0] == 0
    assert command("data", "digits", "experiment=mine", "-cd", "own")[0] == 0
    assert command(*SMALL, "experiment=mine", "hydra.run.dir=run", "-cd", "own")[0] == 0
    assert command("-cd", "own", "eval", "run", "--data", "digits")[0] == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["experiment"] == "mine"


TAKEN_BY = {
    **dict.fromkeys(VERBS, ("--config-dir", "--plugin")),
    **dict.fromkeys(("replay", "predict", "explain", "export", "report", "compare", "list"), ("--plugin",)),
    **dict.fromkeys(("note", "new"), ()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("option", "value"), [("--config-dir", "own"), ("--plugin", "blocks.py")])
def test_an_option_without_effect_is_refused_and_not_in_the_help(verb, option, value, own, command, capsys) -> None:
    with pytest.raises(SystemExit):
        command(verb, "--help")
    takes = option in TAKEN_BY[verb]
    assert (f"{option} " in capsys.readouterr().out) == takes
    code, _, err = command(option, value, verb, "--nonsense")
    assert code == 2
    assert err.startswith(f"{option} must go with a command that ") == (not takes), err


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["resume", "run", "-cd", "own"], "--config-dir must go with a sweep, got a run, which has its config."),
        (["eval", "run", "-cd", "own"], "--config-dir must go with --data, got none. Leave it out."),
        (["data", "digits", "--verify"], "--verify must go with a folder of images, whose cache it checks, got 'digits'."),
        (["compare", "run", "--format=csv", "--baseline=optimizer.lr=1"], "--baseline must go with a format that has "),
        (["compare", "run", "--baseline", "seed=1"], "--baseline must choose one of the settings, got seed=1, which fits"),
    ],
)  # fmt: skip
def test_an_option_that_has_no_effect_here_is_refused(typed: list[str], message: str, own: Path, command) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(COMPLETED.parent)
        option = [str(own) if word == "own" else "completed" if word == "run" else word for word in typed]
        code, _, err = command(*option)
    assert code == 2
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_continues_where_its_configs_have_moved(command, own: Path, tmp_path: Path) -> None:
    code, _, err = command("-m", *SMALL, "experiment=mine", "seed=1,2", "hydra.sweep.dir=sweep", "-cd", "own")
    assert code == 0, err
    own.rename(tmp_path / "moved")
    for path in (tmp_path / "sweep" / "1_mine").rglob("*"):
        if path.is_file():
            path.unlink()
    code, _, err = command("resume", "sweep")
    assert code == 2
    code, out, err = command("resume", "sweep", "--config-dir", "moved")
    assert code == 0, err
    assert "2 of 2 jobs done" in out


@pytest.mark.parametrize("typed", [["--plugin", "blocks.py", "-m"], ["-m", "--plugin", "blocks.py"]])
def test_plugins_reach_whatever_does_the_jobs_of_a_sweep(
    typed: list[str], command, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = (str(tmp_path / "blocks.py"),)
    loaded: list[tuple[str, ...]] = []
    monkeypatch.setattr("era_cnn.config.choices.load_plugins", loaded.append)

    def make_executor(sweep_dir: Path, words: Words, composed: object, options: object, manner: Manner) -> None:
        assert (words.plugins, manner.plugins) == (plugins, plugins)
        raise ConfigError(["This is as far as it must come."])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("era_cnn.sweeps.commands.make_executor", make_executor)
        code, _, err = command(*typed, *SMALL, "seed=1", "hydra.sweep.dir=sweep")
        assert (code, err) == (2, "This is as far as it must come.\n")
        code, _, err = command("resume", "sweep", "--plugin", "blocks.py")
        assert (code, err) == (2, "This is as far as it must come.\n")
    assert loaded == [plugins] * 2

    monkeypatch.setattr("era_cnn.sweeps.worker.load_plugins", loaded.append)
    folder = tmp_path / "sweep" / "0_model_4"
    assert do_job(folder, Manner(("era-cnn",), plugins=plugins), quiet=True) == 0
    assert loaded == [plugins] * 3
    assert (folder / "result.json").exists()


def test_a_plugin_that_can_not_be_loaded_fails_the_job(command, own: Path, tmp_path: Path, monkeypatch) -> None:
    def broken(paths: tuple[str, ...]) -> None:
        if paths:
            raise ConfigError(["blocks.py must be Python, got nonsense. Fix it."])

    assert (
        command("-m", *SMALL, "seed=1", "hydra.sweep.dir=sweep", "hydra.launcher.n_jobs=1", "hydra/launcher=local")[0]
        == 0
    )
    folder = tmp_path / "sweep" / "0_model_4"
    monkeypatch.setattr("era_cnn.sweeps.worker.load_plugins", broken)
    assert do_job(folder, Manner((), plugins=("blocks.py",)), quiet=True) == 2
    assert json.loads((folder / "status.json").read_text(encoding="utf-8"))["state"] == "completed"
    (folder / "result.json").unlink()
    assert do_job(folder, Manner((), plugins=("blocks.py",)), quiet=True) == 2
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["message"]) == ("failed", "blocks.py must be Python, got nonsense. Fix it.")


def test_the_help_lists_the_options_that_may_stand_anywhere(command) -> None:
    out = command("--help")[1]
    assert {"--config-dir FOLDER", "--plugin FILE", "--version"} <= {
        line.split(",")[0].split("   ")[0].strip() for line in out.splitlines()
    }


@pytest.mark.parametrize("words", [["--version"], ["seed=1", "--version"], ["--config-dir", "own", "--version"]])
def test_the_version_is_that_of_the_program_and_of_what_decides_the_bits(words: list[str], own: Path, command) -> None:
    code, out, err = command(*words)
    expected = f"era_cnn {era_cnn.__version__}, PyTorch {version('torch')}, Hydra {version('hydra-core')}\n"
    assert (code, out, err) == (0, expected, "")
