"""Folders of the version before config.yaml had a schema number are read, resumed and replayed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from era_cnn.cli import execute
from era_cnn.config.schema import parse
from era_cnn.config.versions import NUMERICS, stored_digest, upgraded
from tests.training.test_checkpoint import as_schema_2

WORDS = ["data=digits", "trainer=smoke", "trainer.limit_epochs=3", "trainer.limit_train_images=200"]
SHA256 = "55f5dd27efb07366c5d1ce827d84c5062cdfca0306f69492d054185e731b740c"
"""The digest of this config as that version itself computed it, on a CPU."""


def rewrite(path: Path, change: Any) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def as_before(folder: Path) -> None:
    """Turns a run's folder into what the version before would have left."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    del config["schema"]
    data = config["data"] | {key: config["data"][key][0] for key in ("mean", "std")}
    config["data"] = {key: data[key] for key in ("name", "train_size", "mean", "std", "val_size")}
    ((name, fields),) = config["augmentation"].items() or {"none": {}}.items()
    config["augmentation"] = {"name": name, **fields}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    sha256 = stored_digest(config, parse(upgraded(config)))
    for path in (folder / "checkpoints").iterdir():
        values = torch.load(io.BytesIO(as_schema_2(path.read_bytes())), weights_only=True)
        values["origin"]["config_sha256"] = sha256
        buffer = io.BytesIO()
        torch.save(values, buffer)
        name = path.stem.rpartition("_")[0]
        path.unlink()
        path.with_name(f"{name}_{hashlib.sha256(buffer.getvalue()).hexdigest()}.pt").write_bytes(buffer.getvalue())
    rewrite(folder / "provenance.json", lambda values: [values.pop(key) for key in ("schema", "numerics", "plugins")])
    for name in ("provenance.json", "result.json"):
        rewrite(folder / name, lambda values: values.update(config_sha256=sha256))
    (folder / "predictions.npz").unlink()


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("former") / "run"
    assert execute([*WORDS, f"hydra.run.dir={folder}"]) == 0
    as_before(folder)
    return folder


@pytest.fixture
def folder(former: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(former, tmp_path / "run"))


def result_of(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {key: value for key, value in result.items() if key not in ("seconds", "images_per_second")}


def test_a_run_of_the_version_before_is_replayed_to_the_same(folder: Path, command) -> None:
    code, out, err = command("replay", "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("Equal, bit for bit: all 3 epochs and the result of run (")
    assert "This differs" not in out


def test_a_run_of_the_version_before_is_resumed_to_the_same(folder: Path, command, former: Path) -> None:
    (folder / "result.json").unlink()
    (newest,) = (folder / "checkpoints").glob("epoch-00004*")
    newest.unlink()
    code, out, err = command("resume", "run")
    assert (code, err) == (0, "")
    assert "Resuming in epoch 3 after 0 of 4 steps" in out
    assert result_of(folder) == result_of(former)
    assert result_of(folder)["config_sha256"] == SHA256
    assert "schema" not in yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))  # it stays what it was
    assert (folder / "predictions.npz").exists()


def test_a_config_of_the_version_before_that_was_changed_is_noticed(folder: Path, command) -> None:
    (folder / "result.json").unlink()
    text = (folder / "config.yaml").read_text(encoding="utf-8").replace("lr: 0.01", "lr: 0.02")
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    code, _, err = command("resume", "run")
    assert code == 4
    assert f"The config must be what the run began with, SHA-256 {SHA256}, got " in err


@pytest.mark.parametrize("verb", ["replay", "resume"])
@pytest.mark.parametrize(
    ("numerics", "advice"), [(NUMERICS + 1, "Update era_cnn."), (0, "Compare it as it is, or train it anew.")]
)
def test_a_run_of_another_arithmetic_is_neither_resumed_nor_replayed(
    numerics: int, advice: str, verb: str, folder: Path, command
) -> None:
    (folder / "result.json").unlink()
    rewrite(folder / "provenance.json", lambda values: values.update(numerics=numerics))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = command(verb, "run")
    assert code == 4
    assert f"run must have numerics version {NUMERICS} to be trained to the same bits, got {numerics}" in err
    assert advice in err
    assert {path: path.read_bytes() for path in before} == before
    assert command("compare", "run")[0] == 0
