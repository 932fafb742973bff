"""What somebody outside the project can add without editing the package; each probe has at most 60 lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import era_cnn
from tests.helpers import nothing_stays_registered
from tests.probes.averaging import Averaging, StopIn
from tests.probes.json_lines import JsonLines

PROBES = Path(__file__).parent
SMALL = [
    "data=digits",
    "trainer=smoke",
    "threads=1",
    "device=cpu",
    "trainer.limit_train_images=128",
    "trainer.limit_test_images=50",
]
STRIPES = [
    "experiment=model_4", "data=stripes", "data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]", "threads=1",
    "device=cpu", "model.layers.logits.out_channels=7", "trainer.limit_epochs=3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """The plugins of one test are unknown to the next."""
    with nothing_stays_registered():
        yield


@pytest.mark.parametrize("name", ["squeeze", "stripes", "json_lines", "averaging"])
def test_each_probe_is_short(name: str) -> None:
    assert len((PROBES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_a_block_from_a_file(command, tmp_path: Path) -> None:
    plugin = str(PROBES / "squeeze.py")
    words = [
        *SMALL,
        "+model.layers.squeeze={block: squeeze, reduction: 2}",
        "~model.layers.gap",
        "+model.layers.end={block: gap_head}",
    ]
    code, _, err = command(*words, "hydra.run.dir=without")
    assert code == 2
    assert "model.layers.squeeze.block must be one of" in err
    code, out, err = command("describe", *words, "--plugin", plugin)
    assert code == 0, err
    assert "squeeze.weigh.1" in out
    assert command("--plugin", plugin, *words, "hydra.run.dir=run")[0] == 0
    origin = json.loads((tmp_path / "run" / "provenance.json").read_text(encoding="utf-8"))
    assert list(origin["plugins"]) == ["block.squeeze"]
    code, out, err = command("replay", "run", "--plugin", plugin)
    assert (code, err) == (0, "")
    assert "Equal, bit for bit" in out
    words[-3] = "+model.layers.squeeze={block: squeeze, reduction: 20}"
    code, _, err = command("--plugin", plugin, *words)
    assert code == 2
    assert "model.layers.squeeze.reduction must be at most the 10 channels that come in, got 20. Lower it." in err


@pytest.mark.slow
def test_a_data_set_of_colour_images_from_a_file(command, tmp_path: Path) -> None:
    plugin = str(PROBES / "stripes.py")
    code, out, err = command("--plugin", plugin, *STRIPES, "hydra.run.dir=run")
    assert code == 0, err
    assert "on stripes (210 training + 70 test images)" in out
    assert era_cnn.load("run").config.info.shape == (3, 32, 32)
    (tmp_path / "run" / "result.json").unlink()
    for path in (tmp_path / "run" / "checkpoints").glob("epoch-00004*"):  # as if it had been killed in epoch 3
        path.unlink()
    code, out, err = command("resume", "run", "--plugin", plugin)
    assert (code, err) == (0, "")
    assert "Resuming in epoch 3" in out
    code, out, err = command("--plugin", plugin, "replay", "run")
    assert (code, err) == (0, "")
    assert "Equal, bit for bit: all 3 epochs and the result" in out


def test_a_listener_of_ones_own(tmp_path: Path) -> None:
    run = era_cnn.train([*SMALL, "trainer.limit_epochs=2"], listeners=[JsonLines(tmp_path / "log.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["event"] for line in lines] == ["start", "epoch", "epoch", "end", "close"]
    assert lines[2]["train_loss"] == run.metrics[1]["train_loss"]
    assert run.result is not None
    assert lines[3]["final_test_accuracy"] == run.result["final_test_accuracy"]


@pytest.mark.slow
def test_an_average_of_the_weights_resumes_bit_for_bit(tmp_path: Path) -> None:
    words = [*SMALL, "trainer.limit_epochs=3", "trainer.batch_size=32"]  # 4 steps an epoch
    whole = Averaging()
    era_cnn.train([*words, "hydra.run.dir=whole"], listeners=[whole])
    with pytest.raises(KeyboardInterrupt):
        era_cnn.train(
            [*words, "hydra.run.dir=parts", "trainer.checkpoint_every_seconds=1e-9"],
            listeners=[Averaging(), StopIn(2, 1)],
        )
    resumed = Averaging()
    run = era_cnn.resume("parts", listeners=[resumed])
    assert all(torch.equal(tensor, resumed.average.tensors[name]) for name, tensor in whole.average.tensors.items())
    assert not torch.equal(
        whole.average.tensors["conv2.conv.weight"], dict(whole.average.network.named_parameters())["conv2.conv.weight"]
    )
    assert run.metrics == [
        {**row, "seconds": mine["seconds"]}
        for row, mine in zip(era_cnn.load("whole").metrics, run.metrics, strict=True)
    ]
    fingerprints = [(tmp_path / name / "fingerprints.jsonl").read_text(encoding="utf-8") for name in ("whole", "parts")]
    assert fingerprints[0] == fingerprints[1]
    assert "average.conv1.conv.weight" in fingerprints[0]


def test_a_state_with_a_member_is_not_resumed_without_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        era_cnn.train([*SMALL, "trainer.limit_epochs=3", "hydra.run.dir=run"], listeners=[Averaging(), StopIn(2, 0)])
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    with pytest.raises(era_cnn.RunFolderError, match="got a difference in average. Resume with the listeners"):
        era_cnn.resume("run")
    assert {path: path.read_bytes() for path in before} == before
