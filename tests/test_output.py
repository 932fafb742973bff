"""What comes from outside is one harmless line wherever it is printed, in whatever encoding."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import pty
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

import pytest

import era_cnn
from era_cnn.cli import main
from era_cnn.errors import ConfigError, DataError, EraCnnError, OutputError, RunFolderError, TrainingError
from era_cnn.folders.ledger import Job
from era_cnn.folders.outcome import Outcome, Progress
from era_cnn.output import accept_all_characters, complain, counted, discard_output, draw, say
from era_cnn.runs.listeners.console import Console, log_to
from era_cnn.sweeps.board import Board
from tests.runs.listeners.test_console import in_terminal, step_of

FORGED = "Equal, bit for bit"
HOSTILE = {
    "a line break": f"x\n{FORGED}",
    "a carriage return": f"x\r{FORGED}",
    "another line break": f"x\x85{FORGED}",
    "a line separator": f"x\u2028{FORGED}",
    "a colour": f"\x1b[31m{FORGED}",
    "a title": f"\x1b]0;{FORGED}\x07",
    "a control sequence of one byte": f"\x9b2J{FORGED}",
    "text from right to left": f"\u202e{FORGED}",
    "no text": f"\udcff{FORGED}",
}
ENCODINGS = ["ascii", "iso-8859-1", "iso-8859-2", "cp1252", "utf-8"]


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


@pytest.fixture(params=ENCODINGS)
def stream(request: pytest.FixtureRequest) -> io.TextIOWrapper:
    """A stream in an encoding, as PYTHONIOENCODING sets it."""
    return io.TextIOWrapper(io.BytesIO(), request.param, errors="strict", newline="")


@contextmanager
def printing_to(stream: TextIO) -> Iterator[None]:
    with redirect_stdout(stream), redirect_stderr(stream):
        yield


def printed(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode(stream.encoding)  # type: ignore[attr-defined, no-any-return]


def assert_harmless(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), text
    assert not [line for line in text.split("\n") if line.startswith(FORGED)]


def test_what_is_printed_is_one_harmless_line(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    say("first", hostile)
    complain("first", hostile)
    for text in capsys.readouterr():
        assert_harmless(text)
        assert text.count("\n") == 2


def test_what_a_run_logs_is_one_harmless_line(hostile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_to(tmp_path / "run.log"):
        Console(is_terminal=False).say(hostile)
        Console(is_terminal=False).warn(hostile)
        of_a_library = {"msg": hostile, "levelname": "WARNING", "exc_text": f"Traceback:\n{hostile}"}
        logging.getLogger().handlers[-1].handle(logging.makeLogRecord(of_a_library))
    text = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert_harmless(text)
    assert not [line for line in text.splitlines() if not line.startswith(("20", "    "))]
    assert_harmless("".join(capsys.readouterr()))


@pytest.mark.parametrize("kind", [EraCnnError, ConfigError, DataError, RunFolderError, TrainingError])
def test_an_error_is_one_harmless_line(kind: type[EraCnnError], hostile: str) -> None:
    assert_harmless(str(kind([hostile]) if kind is ConfigError else kind(hostile)))  # type: ignore[arg-type]
    assert "\n" not in str(kind([hostile]) if kind is ConfigError else kind(hostile))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("columns", ["40", "100"])
def test_a_board_shows_a_job_on_one_harmless_line(
    columns: str, is_terminal: bool, hostile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    board = Board((1, 4), 0, is_terminal=is_terminal)
    job = Job(0, (f"name={hostile}",), hostile, "", 4, 1)
    board.on_start(job)
    board.refresh(lambda: {job: Progress(2, 0.5)})
    board.on_end(job, Outcome(0, {}, "failed", hostile, None, Path(hostile)), again=False)
    assert_harmless(capsys.readouterr().out.replace("\x1b[J", "").replace("\x1b[2F", ""))


WORDS = ["{}", "models {}", "describe {}", "data {}", "resume {}", "replay {}", "compare {}", "replay --epochs {} run",
         "models --{}", "--config-dir {}", "--plugin {}", "--info {}", "seed={}", "experiment={}", "-m seed={}",
         "--info config seed={}", "--cfg job +name={}"]  # fmt: skip


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("hostile", [HOSTILE["no text"], "".join(HOSTILE.values()).replace("\udcff", "")])
def test_what_was_typed_is_printed_harmlessly(words: str, hostile: str, command, capsys) -> None:
    try:
        _, out, err = command(*(word.replace("{}", hostile) for word in words.split()))
    except SystemExit:  # by argparse
        out, err = capsys.readouterr()
    assert_harmless(out)
    assert_harmless(err)


@pytest.mark.slow
@pytest.mark.parametrize("hostile", ["".join(HOSTILE.values()).replace("\udcff", "")])
def test_a_record_can_not_forge_what_a_command_says(hostile: str, command, tmp_path: Path) -> None:
    assert command("data=digits", "trainer=smoke", "threads=1", "hydra.run.dir=run")[0] == 0
    path = tmp_path / "run" / "provenance.json"
    origin = json.loads(path.read_text(encoding="utf-8"))
    origin["packages"] |= {"torch": hostile, f"numpy{hostile}": "1"}
    path.write_text(json.dumps({**origin, "plugins": {hostile: hostile}}), encoding="utf-8")
    code, out, err = command("replay", "run")
    assert code == 0
    assert_harmless(out.replace(f"\n{FORGED}: the only epoch and the result of run", "\n"))
    assert_harmless(err)


@pytest.mark.parametrize(
    ("text", "ascii_text"),
    [("94.2 ± 0.3", "94.2 +/- 0.3"), ("a → b…", "a -> b..."), ("Größe 你", r"Gr\xf6\xdfe \u4f60")],
)
def test_what_an_encoding_does_not_have_is_replaced(text: str, ascii_text: str, stream: io.TextIOWrapper) -> None:
    with printing_to(stream):
        say(text)
        complain(text)
    assert printed(stream).count("\n") == 2
    if stream.encoding in ("ascii", "utf-8"):
        assert printed(stream) == 2 * ((ascii_text if stream.encoding == "ascii" else text) + "\n")


def test_libraries_can_print_what_an_encoding_does_not_have(stream: io.TextIOWrapper) -> None:
    with printing_to(stream):
        accept_all_characters()
        print("±ö你\udcff", flush=True)
    assert printed(stream).endswith("\n")


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"], ["models", "ö±"]])
def test_each_answer_fits_each_encoding(words: list[str], stream: io.TextIOWrapper) -> None:
    with printing_to(stream), suppress(SystemExit):  # by argparse
        accept_all_characters()
        main(words)
    stream.flush()
    assert len(printed(stream)) > 80


def test_a_run_in_a_notebook_needs_no_particular_encoding(stream: io.TextIOWrapper, tmp_path: Path) -> None:
    name = "folder ±ö你"
    with printing_to(stream):
        run = era_cnn.train(["data=digits", "trainer=smoke", "threads=1"], folder=tmp_path / name)
    assert run.result is not None
    assert "Run folder: folder " in printed(stream)
    assert f"Run folder: {name}" in (tmp_path / name / "run.log").read_text(encoding="utf-8")


def test_a_board_draws_its_bars_in_each_encoding(stream: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with printing_to(stream):
        Board((1, 4), 0, is_terminal=True).refresh(lambda: {Job(0, (), "", "", 4, 1): Progress(2, None)})
    line = printed(stream).splitlines()[0]
    assert "\\" not in line
    assert ("█" in line) == (stream.encoding == "utf-8")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_closed_terminal_is_no_error_but_a_broken_disk_is(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("era_cnn.output._is_device", lambda stream: is_terminal)
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as stream, printing_to(stream):
        os.close(ours)
        complain("first")
        if is_terminal:
            draw("second\n")
            print("third", flush=True)  # goes nowhere
        else:
            with pytest.raises(OutputError, match=os.strerror(errno.EIO)):
                draw("second\n")
            discard_output()


def test_a_bar_in_a_closed_terminal_is_no_error(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as stream, printing_to(stream):
        console = in_terminal()
        console.on_step(step_of(0))
        os.close(ours)
        for step in range(1, 5):
            console.on_step(step_of(step, num_steps=5))
        console.complain("Interrupted.")
        discard_output()


@pytest.mark.parametrize("verb", [[], ["-m", "seed=1,2"]], ids=["run", "sweep"])
def test_a_working_folder_in_another_encoding_is_refused(verb: list[str], command, monkeypatch, request) -> None:
    logging.disable()  # pytest can't report such a path, which some library may log
    request.addfinalizer(lambda: logging.disable(logging.NOTSET))
    monkeypatch.setattr("era_cnn.sweeps.commands.prepare_workers", lambda launcher, config: None)
    folder = Path(os.fsdecode(b"d\xff")).absolute()
    folder.mkdir()
    monkeypatch.chdir(folder)
    code, _, err = command(*verb, "data=digits", "trainer=smoke", "threads=1")
    assert code == 2
    assert err.startswith("A path must be valid UTF-8, got '")
    assert err.endswith("Rename the folder.\n")
    assert not list(Path().rglob("config.yaml"))
    monkeypatch.undo()
    folder.rmdir()


class Clock:
    """Each look takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize(("is_terminal", "num_items", "expected"), [
    (True, 5, "\rJob 2 of 5\033[K\rJob 3 of 5\033[K\rJob 4 of 5\033[K\rJob 5 of 5\033[K\r\033[K"), (True, 1, ""), (False, 5, ""),
])  # fmt: skip
def test_work_is_counted_in_a_terminal_if_it_takes_long(
    is_terminal: bool, num_items: int, expected: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("time.monotonic", Clock())
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    with counted(range(num_items), "Job") as items:
        assert list(items) == list(range(num_items))
    assert capsys.readouterr().out == expected


def test_the_count_is_removed_before_an_error_is_shown(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("time.monotonic", Clock())
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(KeyError), counted("abcdef", "Job") as items:
        {each: {"d": 1}[each] for each in items if each >= "d"}
    assert capsys.readouterr().out.endswith("\rJob 5 of 6\033[K\r\033[K")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("write", [say, complain])
def test_in_a_terminal_sentences_are_wrapped_between_words(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    command, aligned = "era-cnn resume outputs/2026-11-27/11-09-46_model_4", f"conv1  {'Conv2d ' * 5}"
    for stream, expected in (
        (Terminal(), f"Interrupted, but everything\n  was saved. To resume:\n  {command}\n{aligned}\n"),
        (io.StringIO(), f"Interrupted, but everything was saved. To resume: {command}\n{aligned}\n"),
    ):
        with printing_to(stream):
            write(f"Interrupted, but everything was saved. To resume: {command}", aligned)
        assert stream.getvalue() == expected


def test_messages_are_wrapped_to_their_own_terminal_though_standard_output_goes_elsewhere() -> None:
    keeper, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 30, 0, 0))
    with open(terminal, "w", encoding="utf-8") as stream, printing_to(stream):
        complain("Interrupted, but everything was saved.")
        shown = os.read(keeper, 1_000)
    os.close(keeper)
    assert shown == b"Interrupted, but everything\r\n  was saved.\r\n"


def test_a_wrapped_line_can_not_forge_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with printing_to(stream := Terminal()):
        say(f"{'x' * 39} {FORGED}", f"{'x ' * 20}{FORGED}")
    assert_harmless(stream.getvalue())
