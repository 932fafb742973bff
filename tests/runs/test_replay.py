from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from era_cnn.cli import main

WORDS = [
    "data=digits",
    "trainer=smoke",
    "threads=1",
    "trainer.limit_epochs=3",
    "trainer.limit_train_images=128",
    "trainer.limit_test_images=100",
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    assert main([*WORDS, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A copy of a run's folder, elsewhere: nothing but the folder is needed."""
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def shorten(path: Path, lines: int) -> None:
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("names", "message"), [
    (["fingerprints.jsonl"], "run must have the same epochs in both files, got 1 in fingerprints.jsonl and 3 in"),
    (["fingerprints.jsonl", "metrics.csv"], "run must have all of its 3 epochs, since it has a result, got 1 in"),
])  # fmt: skip
def test_a_record_that_lacks_epochs_proves_nothing(names: list[str], message: str, run: Path, command) -> None:
    for name in names:
        shorten(run / name, 1 if name == "fingerprints.jsonl" else 2)
    code, out, err = command("replay", "run")
    assert (code, out) == (4, "")
    assert message in err


def test_metrics_that_were_changed_by_hand_show(run: Path, command) -> None:
    text = (run / "metrics.csv").read_text(encoding="utf-8")
    loss = text.splitlines()[2].split(",")[4]
    (run / "metrics.csv").write_text(text.replace(loss, "0.999"), encoding="utf-8")
    code, _, err = command("replay", "run")
    assert code == 1
    assert f"metrics.csv: test_loss of epoch 2 must be 0.999, got {loss}." in err


def test_a_run_can_be_done_again_from_its_folder(run: Path, command, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, err = command("replay", "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        "Equal, bit for bit: all 3 epochs and the result of run (image order, weights, optimizer, metrics)."
    )
    assert "This differs" not in out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (folder,) = tmp_path.glob("outputs/*/*_model_4_replay")
    assert (folder / "fingerprints.jsonl").read_bytes() == (run / "fingerprints.jsonl").read_bytes()


def test_the_beginning_alone_can_be_compared(run: Path, command, tmp_path: Path) -> None:
    code, out, _ = command("replay", "run", "--epochs", "1")
    assert code == 0
    assert out.splitlines()[-1].startswith("Equal, bit for bit: 1 of 3 epochs of run (")
    (folder,) = tmp_path.glob("outputs/*/*_model_4_replay")
    assert len((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_an_interrupted_run_is_compared_as_far_as_it_came(run: Path, command) -> None:
    shorten(run / "fingerprints.jsonl", 2)
    shorten(run / "metrics.csv", 3)
    (run / "result.json").unlink()
    code, out, _ = command("replay", "run")
    assert code == 0
    assert out.splitlines()[-1].startswith("Equal, bit for bit: 2 of 3 epochs of run (")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("order", "Epoch 2: the order of the images must have the digest 0, got "),
        ("weights.conv2.norm.running_mean", "Epoch 2: weights.conv2.norm.running_mean must have the digest 0, got "),
    ],
)
def test_the_first_epoch_and_tensor_that_differ_are_named(name: str, said: str, run: Path, command) -> None:
    lines = [json.loads(line) for line in (run / "fingerprints.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[1][name] = lines[1]["optimizer.conv1.conv.weight.momentum_buffer"] = lines[2]["order"] = "0"
    (run / "fingerprints.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    code, out, err = command("replay", "run")
    assert code == 1
    assert said in err
    assert "EPOCH:3" not in out
    cause = "Likely cause: another seed" if name == "order" else "no other record changed"
    assert cause in err


def test_what_has_changed_is_said_first_and_is_the_likely_cause(run: Path, command) -> None:
    origin = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    edit_json(run / "provenance.json", packages={**origin["packages"], "torch": "1.0"})
    config = (run / "config.yaml").read_text(encoding="utf-8").replace("lr: 0.01", "lr: 0.02")
    (run / "config.yaml").write_text(config, encoding="utf-8")
    code, out, err = command("replay", "run")
    assert code == 1
    assert out.startswith(
        f"This differs from the original run, so results may not match bit for bit: config {origin['config_sha256'][:12]}… → "
    )
    assert "; torch 1.0 → " in out.splitlines()[0]
    assert "Epoch 1: weights.conv1.conv.weight must have the digest " in err
    assert f"Likely cause: config {origin['config_sha256'][:12]}… → " in err
    assert "; torch 1.0 → " in err, "there may be several, and the first need not be the one"


def test_a_result_that_was_changed_by_hand_shows(run: Path, command) -> None:
    edit_json(run / "result.json", best_test_accuracy=0.999)
    code, _, err = command("replay", "run")
    assert code == 1
    assert "result.json: best_test_accuracy must be 0.999, got 0." in err
    assert "All epochs are equal, so the file was changed." in err


def assert_refused(outcome: tuple[int, str, str], code: int, message: str) -> None:
    assert outcome[0] == code
    assert outcome[1] == ""
    assert message in outcome[2]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 4, "RUN must be the folder of a run, got 'nowhere'."),
        (["run", "--epochs", "4"], 2, "--epochs must be from 1 to 3, the number of recorded epochs, got 4."),
        (["run", "--epochs", "0"], 2, "--epochs must be from 1 to 3"),
        (["run", "--data-root", "x"], 2, "--data-root must not be given: digits is not read from a folder, got 'x'."),
    ],
)
def test_what_cannot_be_replayed_has_its_message(words: list[str], code: int, message: str, run: Path, command) -> None:
    assert_refused(command("replay", *words), code, message)
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("fingerprints.jsonl", "", "must have the same epochs in both files, got 0 in"),
        (
            "fingerprints.jsonl",
            '{"epoch": "x"}',
            "fingerprints.jsonl must hold what the run wrote, got: a line 1 that is not",
        ),
        ("provenance.json", "[]", "provenance.json must hold what the run wrote, got: not an object. Remove it"),
        ("result.json", "[]", "result.json must hold what the run wrote, got: not an object."),
        ("fingerprints.jsonl", "{", "fingerprints.jsonl must hold what the run wrote, got: Expecting"),
        ("provenance.json", "{", "provenance.json must hold what the run wrote, got: Expecting"),
        ("config.yaml", "a: 1", "config.yaml must hold what the run wrote, got: name must be given"),
    ],
)
def test_a_damaged_folder_is_refused(name: str, text: str, message: str, run: Path, command) -> None:
    (run / name).write_text(text, encoding="utf-8")
    code, _, err = command("replay", "run")
    assert code == 4
    assert message in err
    assert not Path("outputs").exists()
