from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from era_cnn import terminal
from era_cnn.cli import VERBS
from era_cnn.compose.complaints import COMMANDS
from era_cnn.folders.run import RunFolder
from era_cnn.runs.carry_out import find_lr_of
from era_cnn.runs.listeners.console import Console
from era_cnn.sweeps.sweep import Drive
from tests.conftest import CONF_DIR, EXPERIMENTS
from tests.process import Command, run_command

SMALL = ["data=digits", "trainer=smoke", "threads=1", "trainer.limit_train_images=128", "trainer.limit_test_images=50"]
ENTRY_POINTS = [[str(Path(sys.executable).with_name("era-cnn"))], [sys.executable, "-m", "era_cnn"]]


def start(entry_point: list[str], *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*entry_point, *words], capture_output=True, text=True, env={**os.environ, **env}, timeout=120, check=False
    )


@pytest.mark.process
@pytest.mark.parametrize("entry_point", ENTRY_POINTS, ids=["era-cnn", "python -m era_cnn"])
def test_a_run_from_another_folder_ends_with_the_paths_of_its_folder_and_report(
    entry_point: list[str], tmp_path: Path
) -> None:
    done = start(entry_point, *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    last, report = done.stdout.splitlines()[-2:]
    folder = tmp_path / last.removeprefix("Run folder: ")
    assert tmp_path / report.removeprefix("Report: ") == folder / "report.html"
    assert {path.name for path in folder.iterdir()} == {
        ".hydra", ".lock", "checkpoints", "config.yaml", "fingerprints.jsonl", "metrics.csv", "plots", "predictions.npz", "provenance.json", "report.html", "report.md", "result.json", "run.log", "samples.npz", "status.json",
        "steps.csv", "summary.json", "summary.txt",
    }  # fmt: skip
    assert json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["command"] == ["era-cnn", *SMALL]
    assert json.loads((folder / "status.json").read_text(encoding="utf-8"))["state"] == "completed"
    log = (folder / "run.log").read_text(encoding="utf-8")
    assert "EPOCH:1 Loss=" in log
    assert "Test set: Average loss" in log


def test_help_names_verbs_and_groups(command) -> None:
    code, text, _ = command("--help")
    assert code == 0
    for verb in VERBS:
        assert f"era-cnn {verb} " in text
    assert "experiment: cifar10_dilated," in text
    assert f"one of {', '.join(VERBS)}" == f"one of {COMMANDS}"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["optimizer.lr=-1"], 2, "optimizer.lr must be greater than 0, got -1."),
        (["model.layers.conv1.out_channels=0"], 2, "model.layers.conv1.out_channels must be at least 1, got 0."),
        (["target.max_params=100"], 2, "model.layers must make at most 100 parameters"),
        (["hydra.job.chdir=true"], 2, "hydra.job.chdir must be false: data.root is relative to the current directory, got true."),
        (["hydra.run.dir=."], 4, "must be a new folder, got one that contains the current directory. Choose another folder"),
        (["hydra.run.dir=/"], 4, "/ must be a new folder"),
        (["hydra.run.dir=${nope}"], 2, "The config must compose, got: Interpolation key 'nope' not found"),
        (["data=digits", "hydra.job.name=x/y"], 2, "hydra.job.name must be a name, got 'x/y'."),
        (["--resolve"], 2, "--package and --resolve must be used with --cfg"),
        (["--run", "-m", "data=digits"], 2, "--run must be used without --multirun, got both. Remove one."),
        (["--cfg", "job", "-p", "nope"], 2, "package 'nope' not found in config"),
        (["-m", "data=digits", "seed=1,2", "hydra.sweep.subdir=x"], 2, "hydra.sweep.subdir must give each job a folder"),
        (["-m", "data.root=nowhere", "seed=1,2"], 3, "nowhere/MNIST/raw/train-images-idx3-ubyte.gz must exist or be"),
        (["describe", "-m", "seed=1"], 2, "-m must be an option of the command, got an unknown one. Values are given as key=value."),
        (["list", "--epochs", "2"], 2, "--epochs must be an option of the command, got an unknown one. See era-cnn list --help."),
        (["--epochs", "2"], 2, "--epochs must be an option of the command, got an unknown one. Write trainer.epochs=…"),
        (["--learning-rate=0.1", "--bs=3"], 2, "--learning-rate must be an option of the command, got an unknown one. Write optimizer.lr=0.1\n--bs must"),
        (["find-lr", "--seed=2"], 2, "--seed must be an option of the command, got an unknown one. Write seed=2"),
        (["--nonsense"], 2, "--nonsense must be an option of the command, got an unknown one. Values are given as key=value."),
        (["-m", "--info", "config"], 2, "--info must be used without --multirun, got both. Remove one."),
        (["data"], 2, "NAME must be one of cifar10, cifar100, digits, "),
        (["data", "cifar"], 2, "data must be one of cifar10, cifar100, digits, emnist, "),
        (["models", "model_4"], 2, "model_4 must be left out, got more than the command takes. See era-cnn models --help."),
        (["eval"], 2, "RUN must be given, got nothing. See era-cnn eval --help."),
        (["predict"], 2, "RUN, IMAGE must be given, got nothing. See era-cnn predict --help."),
        (["predict", "run", "x.png", "--top=x"], 2, "--top must be a whole number, got 'x'. See era-cnn predict --help."),
        (["predict", "run", "x.png", "--top"], 2, "--top must be followed by a value, got nothing."),
        (["predict", "run", "x.png", "--csv", "--json"], 2, "--json must be used without --csv, got both."),
        (["predict", "run", "x.png", "--csv=1"], 2, "--csv must be given without a value, got '1'."),
        (["export", "run", "--format=tf"], 2, "--format must be one of onnx, torch, got 'tf'."),
        (["find-lr", "--start=x"], 2, "--start must be a number, got 'x'."),
        (["resume"], 2, "RUN_OR_SWEEP must be given, got nothing."),
        (["describ"], 2, "Did you mean describe?"),
        (["train"], 2, "got neither. To train, leave it out: era-cnn experiment=NAME"),
        (["trian", "experiment=model_4"], 2, "got neither. To train, leave it out: era-cnn experiment=NAME"),
        (["optimizer.lr", "=", "0.1"], 2, "got neither. Write optimizer.lr=VALUE, without spaces.\n0.1 must be"),
        (["-m", "seed=1", "2"], 2, "got neither. A value follows its key and = without spaces, and several have commas between them"),
        (["--cfg", "jobs"], 2, "--cfg/-c must be one of job, hydra, all, got 'jobs'. See era-cnn --help."),
        (["--cfg"], 2, "--cfg/-c must be followed by a value, got nothing. See era-cnn --help."),
        (["ls"], 2, "got neither. Did you mean list?"),
        (["evaluate"], 2, "got neither. Did you mean eval?"),
        (["data", "nope"], 2, "got 'nope'. For images of your own, choose data=image_folder or data=npz."),
        (["experiment=cifar10_resnet9", "~augmentation"], 2, "~augmentation must remove a single choice, got a group with several, or none. Choose others with augmentation=…"),
        (["help"], 2, "got neither. See era-cnn --help."),
        (["model_4"], 2, "got neither. Write experiment=model_4."),
        (["resnet18"], 2, "got neither. Write model=resnet18."),
        (["experiment", "model_4"], 2, "got neither. Write experiment=NAME, without spaces.\nmodel_4 must be"),
        (["experiment=model_4", "describe"], 2, "describe must be the first word, got it after others. Write era-cnn describe …"),
        (["model=tiny"], 2, "One of your own is a file model/NAME.yaml in the folder that --config-dir names."),
        (["data.root=nowhere"], 3, "nowhere/MNIST/raw/train-images-idx3-ubyte.gz must exist or be downloadable"),
        (["data=digits", "hydra.run.dir=file/day/run"], 4, "run must be a folder that can be created, got Not a dir"),
        (["-m", "data=digits", "hydra.sweep.dir=file/day/run"], 4, "must be a folder that can be created, got Not a"),
        (["-m", "model.layers.conv1.out_channels=8,0"], 2, "model.layers.conv1.out_channels must be at least 1, got 0"),
        (["--config-path", "x"], 2, "--config-path must not be given: the groups are era_cnn's, got 'x'."),
        (["--experimental-rerun", "x.pickle"], 2, "--experimental-rerun must not be used, got 'x.pickle'."),
        (["-m", "seed=range(0)"], 2, "A sweep must have at least one job, got none."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_once_and_leaves_no_folder(
    words: list[str],
    code: int,
    message: str,
    command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from era_cnn.data import idx

    def no_network(url: str, most_bytes: int) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setattr(idx, "fetch", no_network)
    (tmp_path / "file").write_text("", encoding="utf-8")
    try:
        got, out, err = command(*words)
    except SystemExit as end:  # argparse's own
        got, (out, err) = end.code, capsys.readouterr()
    assert got == code
    assert message in err
    assert err.count("\n") <= 1 + message.count("\n") or err.startswith("usage:")
    assert "Traceback" not in out + err
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_an_unexpected_error_is_recorded_and_ends_with_code_1(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from era_cnn.runs import parts as ingredients

    def broken(*args: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(ingredients, "make_schedule", lambda *args, **options: broken())
    code, _, err = command(*SMALL)
    assert code == 1
    assert "ZeroDivisionError: by design" in err
    (status_path,) = tmp_path.glob("outputs/*/*/status.json")
    status = json.loads(status_path.read_text(encoding="utf-8"))
    assert status["state"] == "failed"
    assert status["message"] == "ZeroDivisionError: by design"
    assert "Traceback" in status["traceback"]
    assert not (status_path.parent / "result.json").exists()


@pytest.mark.parametrize(
    ("content", "library", "got"),
    [
        ("int('x')", "a_library", "ValueError: invalid literal for int() with base 10: 'x'"),
        ("raise OSError('no library')", "a_library", "OSError: no library"),
        (
            "import nothing_of_that_name",
            "nothing_of_that_name",
            "ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
        (None, "a_library", "ModuleNotFoundError: No module named 'a_library'"),
    ],
)
def test_a_library_that_dislikes_the_environment_is_named(
    content: str | None, library: str, got: str, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "a_library.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VERBS, "models", lambda line: importlib.import_module("a_library"))
    advice = "Check its installation, and the environment variables that it reads."
    assert command("models") == (1, "", f"The library {library} must be importable, got {got}. {advice}\n")


def test_a_run_that_had_begun_keeps_its_folder_whatever_ends_it(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from era_cnn.errors import RunFolderError
    from era_cnn.folders.checkpoints import CheckpointFolder

    save = CheckpointFolder.save

    def fail_in_epoch_2(self: CheckpointFolder, content: bytes, *, epoch: int, steps_done: int) -> Path:
        if epoch > 2:
            raise RunFolderError("The checkpoint must read back as it was written, got other bytes. Check the disk.")
        return save(self, content, epoch=epoch, steps_done=steps_done)

    monkeypatch.setattr(CheckpointFolder, "save", fail_in_epoch_2)
    code, _, err = command(*SMALL, "trainer.limit_epochs=3", "hydra.run.dir=run")
    assert code == 4
    assert "must read back as it was written" in err
    assert len(list((tmp_path / "run" / "checkpoints").glob("epoch-*"))) == 1


def test_a_diverging_run_ends_with_code_1_and_no_traceback(command, tmp_path: Path) -> None:
    code, _, err = command(*SMALL, "optimizer.lr=1e6", "optimizer.weight_decay=1e6", "model.norm=none")
    assert code == 1
    said = re.fullmatch(
        r"The training loss must stay finite, got (nan|inf) in epoch 1, step \d. Lower optimizer.lr.\n"
        r"Run folder: (outputs/\S+)\nTo try other learning rates: era-cnn find-lr (.*)\n",
        err,
    )
    assert said is not None
    assert said[3] == shlex.join([*SMALL, "optimizer.weight_decay=1e6", "model.norm=none"])
    assert (tmp_path / said[2] / "run.log").read_text(encoding="utf-8").count("Run folder: ") == 1
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    ("first", "command", "suggested"),
    [
        (["era-cnn", "seed=1", "optimizer.lr=3"], None, "era-cnn find-lr seed=1 'name=a b'"),
        (["era-cnn", "-cd", "own", "-m", "seed=1,2"], None, "era-cnn find-lr -cd own seed=1 'name=a b'"),
        (
            ["era-cnn", "--plugin", "a.py", "-cd", "own", "seed=1"],
            ["era-cnn", "resume", "run", "--plugin=b.py"],
            "era-cnn find-lr -cd own --plugin=b.py seed=1 'name=a b'",
        ),
    ],
)
def test_a_diverged_run_suggests_the_test_of_its_own_config(first, command, suggested: str, tmp_path: Path) -> None:
    command = command or first
    folder = RunFolder(tmp_path)
    in_words = "era-cnn find-lr with the overrides of this run, or era_cnn.find_lr(config)"
    assert find_lr_of(folder, command) == in_words
    (tmp_path / ".hydra").mkdir()
    recorded = "hydra: {job: {}, overrides: {task: [seed=1, optimizer.lr=3, 'name=a b']}}"
    (tmp_path / ".hydra" / "hydra.yaml").write_text(recorded, encoding="utf-8")
    folder.write_json("provenance.json", {"command": first})
    assert find_lr_of(folder, command) == suggested


def test_a_folder_with_any_name_will_do(command, tmp_path: Path) -> None:
    code, out, _ = command(*SMALL, r"hydra.run.dir='it\'s a place, 100% ü=1'")
    assert code == 0
    assert (tmp_path / "it's a place, 100% ü=1" / "result.json").exists()
    assert out.splitlines()[-1] == "Run folder: it's a place, 100% ü=1"


@pytest.mark.parametrize("swept", [["optimizer.lr=0.1,0.2"], ["experiment=model_3,model_4"], []], ids=str)
def test_the_config_of_a_sweep_can_be_shown(swept: list[str], command) -> None:
    code, out, err = command("-m", "hydra/launcher=local", *swept, "--cfg", "hydra")
    assert (code, err) == (0, "")
    assert "  launcher:\n    name: local\n" in out
    code, out, err = command("-m", "trainer=smoke", *swept, "--cfg", "job", "--package", "trainer")
    assert (code, err) == (0, "")
    assert "limit_train_images: " in out
    code, _, err = command(*swept, "optimizer.lrr=1", "-m", "--cfg", "job")
    assert (code, err) == (2, "optimizer.lrr must be a key of the config, got 1. Did you mean optimizer.lr?\n")


@pytest.mark.slow
def test_flags_may_stand_behind(command, tmp_path: Path) -> None:
    code, out, _ = command(*SMALL, "seed=1,2", "hydra.sweep.dir=s", "-m")
    assert code == 0
    assert "2 of 2 jobs done" in out
    code, _, _ = command(*SMALL, "hydra.run.dir=r", "--config-name", "config")
    assert code == 0
    assert (tmp_path / "r" / "result.json").exists()


def test_folders_of_jobs_may_have_any_name(command, tmp_path: Path) -> None:
    code, out, _ = command("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=s", "hydra.sweep.subdir='seed ${seed}'")
    assert code == 0
    assert {path.name for path in (tmp_path / "s").iterdir() if path.is_dir()} == {"seed 1", "seed 2"}
    assert "2 of 2 jobs done" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGUSR2, 143)],
)
def test_a_run_that_a_signal_stops_says_how_to_go_on(
    number: int, code: int, command, sabotaged, tmp_path: Path
) -> None:
    sabotaged({1: "wait"})
    process = Command(*SMALL, "trainer.limit_epochs=3", "hydra.run.dir=run")
    for line in process.stdout:
        if line.startswith("Test set"):
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == "Interrupted. To resume: era-cnn resume run\n"
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "interrupted"
    assert not (tmp_path / "run" / "result.json").exists()
    code, out, _ = command("resume", "run")
    assert code == 0
    assert "Resuming in epoch " in out
    assert out.splitlines()[-1] == "Run folder: run"
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "completed"
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert [f"EPOCH:{epoch} " in log for epoch in range(1, 4)] == [True] * 3


def _stopped_at_once(*args: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_a_second_ctrl_c_stops_says_how_to_go_on(command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Console, "on_epoch", _stopped_at_once)
        code, _, err = command(*SMALL, "hydra.run.dir='a run'")
    assert (code, err) == (130, "To resume what was saved: era-cnn resume 'a run'\nStopped.\n")
    code, out, _ = command("resume", "a run")
    assert code == 0
    assert out.splitlines()[-1] == "Run folder: a run"


def test_a_sweep_that_a_second_ctrl_c_stops_says_how_to_go_on(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drive, "go", _stopped_at_once)
    code, _, err = command("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=sweep")
    assert (code, err) == (130, "To resume what is not done: era-cnn resume sweep\nStopped.\n")


def test_a_signal_ends_a_sweep_with_its_table(sabotaged, tmp_path: Path) -> None:
    sabotaged({1: "wait"})
    process = Command("-m", *SMALL, "trainer.limit_epochs=2", "seed=1,2", "hydra.sweep.dir=sweep")
    for line in process.stdout:
        if line == "job 0 (seed=1) started\n":
            break
    while not list((tmp_path / "sweep").glob("0*/checkpoints/*.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == ""
    assert re.search(r"^0 +1 +interrupted", out, re.MULTILINE)
    assert re.search(r"^1 +2 +planned", out, re.MULTILINE)


KINDS = {
    "run": ([*SMALL, "trainer.limit_epochs=2", "hydra.run.dir=run"], "EPOCH:1 "),
    "sweep": (["-m", *SMALL, "trainer.limit_epochs=2", "seed=1,2", "hydra.sweep.dir=run"], "job 0 "),
}
"""The commands of a run and of a sweep, and a part of a line that they print after they have begun."""


class Terminal:
    """A terminal that a command prints to, and that can be closed."""

    def __init__(self, *words: str, before: str = "") -> None:
        self._ours, theirs = os.openpty()
        self.process = Command(*words, stdout=theirs, before=before)
        os.close(theirs)

    def wait_for(self, text: str) -> None:
        """Reads until a text was printed."""
        printed = ""
        while text not in printed:
            printed += os.read(self._ours, 1000).decode()

    def close(self) -> None:
        """Closes the terminal as its window does: later writes fail, and its processes receive SIGHUP."""
        os.close(self._ours)
        self.process.send_signal(signal.SIGHUP)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_terminal_costs_nothing(kind: str, command, sabotaged, tmp_path: Path) -> None:
    sabotaged({1: "wait"})
    words, begun = KINDS[kind]
    terminal = Terminal(*words)
    terminal.wait_for(begun)
    while not list((tmp_path / "run").glob("**/checkpoints/*.pt")):
        assert terminal.process.poll() is None
        time.sleep(0.01)
    terminal.close()
    _, err = terminal.process.communicate()
    assert terminal.process.returncode == 129
    assert "Traceback" not in err
    if kind == "sweep":
        assert "interrupted" in (tmp_path / "run/sweep.md").read_text(encoding="utf-8")
    else:
        assert json.loads((tmp_path / "run/status.json").read_text(encoding="utf-8"))["state"] == "interrupted"
    (tmp_path / "go").touch()
    assert command("resume", "run")[0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_that_ignores_hangups_goes_on_without_its_terminal(kind: str, sabotaged, tmp_path: Path) -> None:
    sabotaged({1: "wait"})
    words, begun = KINDS[kind]
    terminal = Terminal(*words, before="import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)")  # as nohup does
    terminal.wait_for(begun)
    terminal.close()
    (tmp_path / "go").touch()
    _, err = terminal.process.communicate()
    assert (terminal.process.returncode, err) == (0, "")
    assert len(list((tmp_path / "run").glob("**/result.json"))) == (2 if kind == "sweep" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "models", "data=digits trainer=smoke"])
def test_an_output_that_nobody_reads_is_no_fault_of_the_config(words: str, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    process = Command(*words.split(), stdout=theirs)
    os.close(theirs)
    assert len(os.read(ours, 1)) == 1
    os.close(ours)
    _, err = process.communicate()
    assert "Traceback" not in err
    assert "must compose" not in err
    assert "Exception ignored" not in err
    assert process.returncode in (0, 1)
    assert process.returncode == 0 or re.match("Standard output (was closed|must stay open, got: Broken pipe)", err)


def test_an_answer_that_is_not_read_to_its_end_needs_no_message() -> None:
    ours, theirs = os.pipe()
    process = Command("describe", "--keys", stdout=theirs)
    os.close(theirs)
    os.close(ours)
    assert (process.communicate()[1], process.returncode) == ("", 1)


SAYS_THAT_IT_WRITES = """
from pathlib import Path
from era_cnn import output
draw = output.draw
output.draw = lambda text: (Path("writes").touch(), draw(text))
"""


def test_an_output_that_another_program_made_non_blocking_loses_nothing(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    full = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            full += os.write(theirs, b" " * 4096)
    process = Command("models", stdout=theirs, before=SAYS_THAT_IT_WRITES)
    os.close(theirs)
    while not (tmp_path / "writes").exists():  # before anybody reads
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    said = b""
    while part := os.read(ours, 2**16):
        said += part
    os.close(ours)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert b"model_4_digits" in said[full:]


REMOVED = """
import os, signal, time
from era_cnn import cli
class Removed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGNAL)
        time.sleep(0.001)
def work(line):
    Removed()
    time.sleep(60)
    return 0
cli.VERBS["models"] = work
"""


@pytest.mark.parametrize(("name", "code", "said"), [("SIGTERM", 143, "Terminated.\n"), ("SIGINT", 130, "Stopped.\n")])
def test_a_signal_while_an_object_is_removed_is_not_lost(name: str, code: int, said: str) -> None:
    process = Command("models", before=REMOVED.replace("SIGNAL", name))
    _, err = process.communicate()
    assert (process.returncode, err) == (code, said)


@pytest.mark.slow
def test_models_lists_experiments_of_ones_own(command, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [model_4]\nname: mine\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    _, out, _ = command("models", "--json", "--config-dir", "own")
    assert "mine" in [entry["experiment"] for entry in json.loads(out)]


def test_a_sweep_gives_a_folder_a_job_and_a_table(command, tmp_path: Path) -> None:
    code, out, _ = command("-m", *SMALL, "model.dropout=0.05,0.1", "seed=1,2")
    assert code == 0
    (sweep,) = tmp_path.glob("multirun/*/*")
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == [f"{i}_model_4" for i in range(4)]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(sweep.glob("*/result.json"))]
    assert len({result["weights_sha256"] for result in results}) == 4
    table = out[out.index("\njob  ") + 1 :].splitlines()
    assert re.split(r"\s{2,}", table[0]) == [
        "job", "model.dropout", "seed", "state", "best test", "final test", "seconds", "folder",
    ]  # fmt: skip
    assert [row.split()[:4] for row in table[2:6]] == [
        ["0", "0.05", "1", "completed"], ["1", "0.05", "2", "completed"],
        ["2", "0.1", "1", "completed"], ["3", "0.1", "2", "completed"],
    ]  # fmt: skip
    assert table[-1] == f"Sweep folder: {sweep.relative_to(tmp_path)}"


def test_a_job_gives_the_same_bits_alone_and_in_a_sweep(command, tmp_path: Path) -> None:
    command(*SMALL, "seed=2", "hydra.run.dir=alone")
    command("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=sweep")
    alone = json.loads((tmp_path / "alone" / "result.json").read_text(encoding="utf-8"))
    swept = json.loads((tmp_path / "sweep" / "1_model_4" / "result.json").read_text(encoding="utf-8"))
    assert alone["weights_sha256"] == swept["weights_sha256"]
    assert alone["config_sha256"] == swept["config_sha256"]


def test_a_failing_job_does_not_stop_the_others(command, tmp_path: Path) -> None:
    code, out, _ = command("-m", *SMALL, "model.norm=none", "trainer.batch_size=16", "optimizer.lr=1e6,0.001")
    assert code == 1
    (sweep,) = tmp_path.glob("multirun/*/*")
    states = [json.loads(path.read_text(encoding="utf-8"))["state"] for path in sorted(sweep.glob("*/status.json"))]
    assert states == ["failed", "completed"]
    assert "job 0: The training loss must stay finite" in out


def test_models_lists_every_experiment(command) -> None:
    code, out, _ = command("models", "--json")
    entries = {entry["experiment"]: entry for entry in json.loads(out)}
    assert code == 0
    assert sorted(entries) == EXPERIMENTS
    model_3 = entries["model_3"]
    assert (model_3["params"], model_3["max_params"], model_3["max_epochs"]) == (9_180, 10_000, 20)
    assert (model_3["test_accuracy"], model_3["receptive_field"]) == (0.994, 20)
    assert entries["model_1"]["max_params"] is None
    _, table, _ = command("models")
    assert len(table.splitlines()) == len(EXPERIMENTS) + 3
    assert table.splitlines()[-1] == OPEN
    assert re.search(r"model_4 +7,616 +8,000 +15 +15 +99.00% +20 px +2\.2 M", table)


OPEN = "own_images needs data.root: era-cnn describe experiment=own_images data.root=…"


def own_experiments(folder: Path, **targets: str) -> None:
    """Experiments of one's own, each with its target."""
    (folder / "experiment").mkdir(parents=True)
    for name, target in targets.items():
        text = f"# @package _global_\ndefaults: [model_4]\nname: {name}\ntarget: {target}\n"
        (folder / "experiment" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_models_check_says_that_every_packaged_experiment_meets_its_target(command) -> None:
    code, out, err = command("models", "--check")
    assert (code, err) == (0, "")
    assert out == f"{len(EXPERIMENTS)} experiments can be built, and none misses its target.\n{OPEN}\n"


@pytest.mark.slow
def test_models_check_has_a_line_for_each_failure(command, tmp_path: Path) -> None:
    own_experiments(
        tmp_path / "own",
        good="{requires: [norm, dropout, gap]}",
        large="{max_params: 7000}",
        wide="{min_receptive_field: 45, requires: [no_max_pool]}",
        wrong="{requires: [nrom]}",
    )
    code, out, err = command("models", "--check", "--config-dir", "own")
    assert (code, out) == (2, "")
    lines = sorted(line.partition(": ")[2] for line in err.splitlines() if line.startswith("In experiment"))
    assert lines == [
        "model.layers must have a receptive field of at least 45 px, the target of wide, got 20 px. Add layers, "
        "strides or dilation.",
        "model.layers must have no max pooling, the target of wide, got pool. Use a stride instead.",
        "model.layers must make at most 7,000 parameters, the target of large, got 7,616. Make the network "
        "smaller, or raise target.max_params; ~experiment drops the target.",
        "target.requires.0 must be one of norm, dropout, gap, depthwise, dilation, no_max_pool, no_linear, got 'nrom'. Did "
        "you mean norm? It is in experiment/wrong.yaml.",
    ]
    assert len(err.splitlines()) == 4
    code, out, _ = command("models", "--check", "--json", "--config-dir", "own")
    misses = {entry["experiment"]: len(entry["misses"]) for entry in json.loads(out)}
    assert (code, misses["good"], misses["large"], misses["wide"], "wrong" in misses) == (2, 0, 1, 2, False)


@pytest.mark.slow
def test_models_and_describe_show_what_misses_its_target_and_say_so(command, tmp_path: Path) -> None:
    own_experiments(tmp_path / "own", large="{max_params: 7000}")
    for words in (["models"], ["describe", "experiment=large"]):
        code, out, err = command(*words, "--config-dir", "own")
        assert (code, "7,616" in out) == (2, True)
        assert "model.layers must make at most 7,000 parameters, the target of large, got 7,616." in err


def test_describe_shows_a_composed_network_and_trains_nothing(command, tmp_path: Path) -> None:
    code, out, _ = command("describe", "experiment=model_3", "model.layers.conv2.out_channels=17")
    assert code == 0
    assert "(17, 24, 24)" in out
    assert "Parameters: 9,398" in out
    assert list(tmp_path.iterdir()) == []


def test_data_verifies_a_data_set(command) -> None:
    code, out, _ = command("data", "digits")
    assert code == 0
    assert out.startswith("digits: 1,437 training and 360 test images, verified, SHA-256 ")
    assert command("data", "minst")[0] == 2


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_completion_can_be_installed(shell: str) -> None:
    done = start(ENTRY_POINTS[0], "-sc", f"install={shell}")
    assert done.returncode == 0
    assert "era-cnn" in done.stdout


@pytest.mark.process
def test_tab_completion_completes() -> None:
    query = start(ENTRY_POINTS[0], "-sc", "query=bash", COMP_LINE="era-cnn experiment=model_3", COMP_POINT="25")
    assert "experiment=model_3_plain" in query.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("des", ["describe"]),
        ("re", ["record", "replay", "report", "report=", "resume"]),
        ("describe model=model_1", ["model=model_1"]),
        ("describe --json --config-dir own model=mi", ["model=mine"]),
        ("--config-dir=own -m model=mi", ["model=mine"]),
        ("model=mi", []),
        ("--plugin nowhere.py model=model_1", ["model=model_1"]),
        ("find-lr --seeds=2 model=model_1", ["model=model_1"]),
        ("optimizer=adam optimizer.b", ["optimizer.betas."]),
        ("compare out", []),
        ("--config-dir ow", []),
        ("--config-dir ", []),
        ("--conf", []),
    ],
)
def test_a_line_with_options_and_verbs_is_completed(
    typed: str, offered: list[str], command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own/model").mkdir(parents=True)
    Path("own/model/mine.yaml").write_text("name: mine\n", encoding="utf-8")
    monkeypatch.setenv("COMP_LINE", f"era-cnn {typed}")
    code, out, err = command("-sc", "query=bash")
    assert (code, err, sorted(out.split())) == (0, "", offered)
    assert os.environ["COMP_LINE"] == f"era-cnn {typed}"


def test_a_signal_that_comes_too_late_for_a_run_still_stops_the_sweep(tmp_path: Path) -> None:
    late = (
        "import os, signal\n_replace = os.replace\n"
        "def replace(old, new):\n    _replace(old, new)\n"
        "    if str(new).endswith('result.json'):\n        os.kill(int(os.environ['DRIVER']), signal.SIGTERM)\n"
        "if 'DRIVER' not in os.environ:\n    os.environ['DRIVER'] = str(os.getpid())\n"
        "os.replace = replace\n"
    )
    done = run_command("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=sweep", before=late)
    assert done.returncode == 143
    assert done.stderr == ""
    assert [path.parent.name for path in (tmp_path / "sweep").glob("*/result.json")] == ["0_model_4"]
    assert re.search(r"^0 +1 +completed", done.stdout, re.MULTILINE)
    assert re.search(r"^1 +2 +planned", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", ["models", "models --help", "--help", "RUN", "-m RUN seed=1,2"])
def test_an_output_that_is_full_is_named(line: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    words = line.replace("RUN", " ".join(SMALL)).split()
    with open("/dev/full", "w") as full:
        done = run_command(*words, stdout=full.fileno())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(
        "Standard output must stay open, got: No space left on device. Redirect it to a file."
    )
    assert done.stderr.count("Standard output") == 1
    assert "Exception ignored" not in done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("sede=1 2> /dev/full", 2),
        ("models >&-", 0),
        ("RUN trainer.ema_decay=0.9999 2> /dev/full", 0),
        ("RUN >&- 2>&-", 0),
    ],
)
def test_streams_that_are_full_or_closed_from_the_start_matter_to_nobody(line: str, code: int) -> None:
    program = " ".join(map(shlex.quote, ENTRY_POINTS[1]))
    command = f"{program} {line.replace('RUN', ' '.join([*SMALL, 'report=false']))}"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", command], env=buffered, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stderr == ""


def test_threads_that_openmp_will_not_give_are_refused(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    others = [word for word in SMALL if not word.startswith("threads=")]
    code, _, err = command(*others, "threads=2")
    assert code == 2
    assert err == (
        "threads must be at most 1, the value of the environment variable OMP_THREAD_LIMIT, got 2. Lower it, or unset the variable.\n"
    )
    assert command(*others, "threads=1")[0] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_that_a_library_makes_another_error_of_is_still_a_signal(
    number: int, code: int, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        try:
            terminal._stop(number, None)
        finally:
            raise AttributeError("as OmegaConf does when it is interrupted")

    monkeypatch.setattr(terminal, "_signals", [])
    monkeypatch.setattr("era_cnn.compose.words.load", interrupted)
    monkeypatch.setattr("era_cnn.compose.composition.load", interrupted)
    assert command(*SMALL) == (code, "", "Terminated.\n")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["experiment=model_4_digits", "augmentation=[rotate,cutout]", "augmentation.cutout.holes=[2,2]", "optimizer=adam"], [
            "Data: digits, 1,437 training + 360 test images of 1×28×28 in 10 classes",
            "Augmentation: rotate, degrees 7, fill 1; cutout, holes [2,2], ",
            "Optimizer: adam, lr 0.001",
            "Schedule: step, every_epochs 6, gamma 0.1",
            "Training: epochs 15, batch_size 32, eval_batch_size 250",
        ]),
        (["data=digits", "data.val_size=37", "~experiment", "trainer.ema_decay=0.9", "trainer.epochs=3"], [
            "Data: digits, 1,400 training + 37 validation + 360 test images of ",
            "Augmentation: none",
            "Optimizer: sgd, lr 0.01, momentum 0.9",
            "Schedule: constant",
            "Training: epochs 3, batch_size 64, eval_batch_size 250, ema_decay 0.9",
        ]),
        (["data=digits", "trainer.limit_train_images=50", "trainer.limit_test_images=360"], [
            "Data: digits, 50 of 1,437 training + 360 test images of ",
            "Augmentation: ",
            "Optimizer: sgd",
            "Schedule: ",
            "Training: ",
        ]),
    ],
)  # fmt: skip
def test_a_description_shows_the_recipe(words: list[str], lines: list[str], command) -> None:
    code, out, _ = command("describe", *words)
    assert code == 0
    for line, begin in zip(out.splitlines()[-5:], lines, strict=True):
        assert line.startswith(begin)


def test_a_description_explains_the_field_of_a_pooling_over_the_whole_image(command) -> None:
    _, out, _ = command("describe", "experiment=model_4_digits")
    assert out.partition("for one image\n")[2].splitlines()[:2] == [
        "field: the pixels of the image, along one axis, that an output depends on.",
        "gap.pool sees all positions at once; the total is the field before it.",
    ]
    _, out, _ = command("describe", "experiment=model_1")  # which has no such pooling
    assert "\nfield:" not in out


def test_a_description_lists_what_decays_if_not_all_does(command) -> None:
    code, out, _ = command("describe", "optimizer.weight_decay=1e-4", "optimizer.weight_decay_on=weights")
    assert code == 0
    (line,) = [each for each in out.splitlines() if each.startswith("Weight decay")]
    assert line.startswith("Weight decay on 7 of 17 parameters: conv1.conv.weight, conv2.conv.weight, ")
    assert "norm" not in line
    assert "Weight decay" not in command("describe", "optimizer.weight_decay=1e-4")[1]


def test_describe_lists_the_keys_with_values_and_meanings(command) -> None:
    code, out, err = command("describe", "--keys", "optimizer", "experiment=model_4_digits", "optimizer.lr=0.02")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:4] == [
        "optimizer=sgd",
        "    an option of a group; era-cnn --help lists all of them",
        "optimizer.lr=0.02 (number > 0)",
        "    the learning rate, greater than 0",
    ]
    assert all(line.startswith(("optimizer", "    ")) for line in lines)


def test_every_key_of_the_default_config_has_a_meaning(command) -> None:
    code, out, _ = command("describe", "--keys")
    lines = out.splitlines()
    assert code == 0
    assert lines[-2:] == [
        "The fields of each layer: era-cnn describe --keys model.layers",
        "The keys of a sweep: --keys sweep, --keys hydra.launcher, --keys hydra.sweeper",
    ]
    assert [line for line in lines[1:-2:2] if not line.startswith("    ") or "None" in line] == []
    named = {re.split("[= ]", line)[0] for line in lines[:-2:2]}
    assert named >= {
        "seed",
        "data.root",
        "augmentation.rotate.degrees",
        "model.layers",
        "trainer.early_stopping.patience",
    }
    assert len(named) > 60


def test_the_fields_of_layers_are_keys_too(command) -> None:
    _, out, _ = command("describe", "--keys", "model.layers.conv2", "data=digits")
    lines = out.splitlines()
    assert lines[0] == "model.layers.conv2.out_channels=16 (whole number ≥ 1, ≤ 65,536)"
    assert "model.layers.conv2.kernel_size=3 (whole number ≥ 1, ≤ 1,024)" in lines  # the block's default
    assert "model.layers.conv2.bias (true, false)" in lines  # that of the model


@pytest.mark.parametrize(("words", "first", "another"), [
    (["sweep"], "sweep=default", "sweep.retries=2 (whole number ≥ 0, ≤ 100)"),
    (["sweep.retries"], "sweep.retries=2 (whole number ≥ 0, ≤ 100)", None),
    (["hydra.launcher", "hydra/launcher=local"], "hydra/launcher=local", "hydra.launcher.n_jobs=null (whole number ≥ 1, ≤ 1,024 or null)"),
    (["hydra/launcher", "hydra/launcher=slurm"], "hydra/launcher=slurm", "hydra.launcher.timeout_min=240 (whole number ≥ 1, ≤ 525,600)"),
    (["hydra.sweeper", "hydra/sweeper=optuna"], "hydra/sweeper=optuna", "hydra.sweeper.n_trials=20 (whole number ≥ 1, ≤ 10,000)"),
])  # fmt: skip
def test_the_keys_of_a_sweep_are_listed(words: list[str], first: str, another: str | None, command) -> None:
    code, out, err = command("describe", "--keys", *words, "sweep.retries=2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == first
    assert another is None or another in lines
    assert all(line.startswith("    ") and "None" not in line for line in lines[1::2])


@pytest.mark.parametrize(("words", "message"), [
    (["--keys", "sweeep"], "--keys must be a group or a key of this config, got 'sweeep'. Did you mean sweep?"),
    (["--keys", "sweep.retry"], "--keys must be a group or a key of this config, got 'sweep.retry'. Did you mean sweep.retries?"),
    (["--keys", "hydra.launcher"], "--keys must be used with an option that has keys, got 'hydra.launcher'. Add one, such as hydra/launcher=local"),
    (["--keys", "hydra/sweeper"], "--keys must be used with an option that has keys, got 'hydra.sweeper'. Add one, such as hydra/sweeper=optuna"),
    (["--keys", "hydra"], "--keys must be used with an option that has keys, got 'hydra'. Add one, such as hydra/launcher=local"),
    (["--keys", "hydra.launcher", "hydra/launcher=loca"], "hydra/launcher must be one of basic, local, ray_cluster, slurm, submitit_local, got 'loca'. Did you mean local?"),
    (["--keys", "trainr"], "--keys must be a group or a key of this config, got 'trainr'. Did you mean trainer?"),
    (["--keys", "--profile"], "--keys must be used without --profile, got both. Remove one."),
])  # fmt: skip
def test_keys_that_do_not_exist_are_refused(words: list[str], message: str, command) -> None:
    assert command("describe", *words)[::2] == (2, message + "\n")


def test_an_override_after_keys_is_no_key(command) -> None:
    assert "\nseed=3 (whole number ≥ 0)\n" in command("describe", "--keys", "seed=3")[1]


def test_the_help_fits_a_terminal() -> None:
    text = (CONF_DIR / "hydra" / "help" / "era_cnn.yaml").read_text(encoding="utf-8")
    assert max(map(len, inspect.cleandoc(text.partition("template: |-")[2]).splitlines())) <= 80


@pytest.mark.parametrize("typed", ["nope", "there/nope"])
@pytest.mark.parametrize(
    "words",
    ["list F", "compare F", "resume F", "report F", "eval F", "predict F x.png", "explain F x.png", "export F", "replay F",
     "note F text", "record F --to y"],
)  # fmt: skip
def test_a_folder_that_is_not_there_is_named_as_it_was_typed(words: str, typed: str, command, tmp_path: Path) -> None:
    code, out, err = command(*[typed if word == "F" else word for word in words.split()])
    assert (code, out) == (4, "")
    assert re.search(rf"(^|'){typed}('| must)", err)
    assert str(tmp_path) not in err
    assert err.count("\n") == 1
