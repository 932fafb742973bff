"""The package in Python: what the commands do, without a lasting change to the process."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import era_cnn
from era_cnn.api import _checked
from era_cnn.config.parsing import parse
from tests.conftest import config_of
from tests.helpers import nothing_stays_registered

SMALL = [
    "data=digits",
    "trainer=smoke",
    "threads=1",
    "device=cpu",
    "trainer.limit_train_images=64",
    "trainer.limit_test_images=50",
]


def state_of_the_process() -> dict[str, Any]:
    """All that a training changes while it lasts."""
    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "random": torch.get_rng_state().tolist(),
        "environment": dict(os.environ),
        "handlers": (list(logging.getLogger().handlers), logging.getLogger().level),
        "folder": os.getcwd(),
        "resolvers": [OmegaConf.has_resolver(name) for name in ("now", "hydra", "oc.env", "oc.create")],
        "create": OmegaConf.create({"a": "${oc.create:'{b: 1}'}"}).a.b,
    }


@pytest.mark.process
def test_the_package_is_imported_without_anything_else() -> None:
    program = "import sys, era_cnn; print({'torch', 'numpy', 'pydantic', 'hydra', 'omegaconf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_each_public_name_is_there() -> None:
    for name in era_cnn.__all__:
        assert getattr(era_cnn, name) is not None
    assert set(era_cnn.__all__) <= set(dir(era_cnn))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        era_cnn.nonsense  # noqa: B018


@pytest.mark.process
def test_compose_is_a_function_however_often_it_is_called() -> None:
    """The package of that name is imported by the first call, and takes its place."""
    program = (
        "import era_cnn\n"
        "for _ in range(2): config = era_cnn.compose(['data=digits'])\n"
        "from era_cnn import compose\n"
        "print(compose(['data=digits']) == config, config.data.name)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True digits\n"


def test_a_run_is_trained_loaded_and_replayed(tmp_path: Path) -> None:
    config = era_cnn.compose([*SMALL, "data.val_size=100"])
    run = era_cnn.train(config, folder="run", quiet=True)
    assert run.path == tmp_path / "run"
    again = era_cnn.load("run")
    assert again.config == config.anchored().model_copy(update={"device": "cpu"})
    assert again.result == run.result
    assert again.state == "completed"
    assert [row["epoch"] for row in again.metrics] == [1]
    assert again.metrics[0]["test_accuracy"] == again.result["final_test_accuracy"]
    assert era_cnn.replay("run")
    assert era_cnn.train(config, folder="run", quiet=True).path == tmp_path / "run_2"


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_network_is_what_the_run_left(which: str) -> None:
    run = era_cnn.train([*SMALL, "trainer.limit_epochs=2", "data.val_size=100", "hydra.run.dir=run"], quiet=True)
    network = run.network(which)  # type: ignore[arg-type]
    assert not network.training
    stored = np.load("run/predictions.npz")
    from era_cnn.runs.parts import make_evaluation_batches, make_splits, read_data

    _, _, test = make_splits(read_data(run.config), run.config, torch.device("cpu"))
    with torch.no_grad():
        logits = torch.cat([network(batch.images) for batch in make_evaluation_batches(test, run.config)])
    assert np.array_equal(logits.numpy(), stored["logits" if which == "last" else "best_logits"])


@pytest.mark.parametrize("call", ["compose", "train", "replay", "load", "a failing train"])
def test_the_process_is_left_as_it_was(call: str) -> None:
    run = era_cnn.train([*SMALL, "hydra.run.dir=run"], quiet=True)
    torch.manual_seed(7)
    before = state_of_the_process()
    if call == "compose":
        era_cnn.compose(SMALL)
    elif call == "train":
        era_cnn.train(SMALL)
    elif call == "replay":
        era_cnn.replay(run.path)
    elif call == "load":
        era_cnn.load(run.path).network()
    else:
        with pytest.raises(era_cnn.TrainingError):
            era_cnn.train([*SMALL, "optimizer.lr=1e6", "model.norm=none", "optimizer.weight_decay=1e6"])
    assert state_of_the_process() == before


@pytest.mark.slow
def test_trainings_in_threads_come_to_the_same_bits() -> None:
    expected = [era_cnn.train([*SMALL, f"seed={seed}"], quiet=True).result for seed in (1, 2, 3)]
    found: dict[int, Any] = {}

    def train(seed: int) -> None:
        found[seed] = era_cnn.train([*SMALL, f"seed={seed}"], quiet=True).result

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, result in enumerate(expected, start=1):
        assert result is not None
        assert found[seed]["weights_sha256"] == result["weights_sha256"]


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(era_cnn.ConfigError, match=r"optimizer\.lr must be greater than 0"):
        era_cnn.train([*SMALL, "optimizer.lr=-1"])
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(era_cnn.DataError, match="must have the SHA-256"):
        era_cnn.train(["data=mnist", f"data.root={tmp_path / 'data'}", "threads=1", "device=cpu"])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["experiment=model_3"], {"config_dir": "nowhere"}, "config_dir must be a folder, got 'nowhere'"),
        ("experiment=model_3", {}, "overrides must be a list of strings"),
        ([1], {}, "overrides must be a list of strings"),
        (5, {}, "overrides must be a list of strings, got 5"),
        ({"seed": 1}, {}, "overrides must be a list of strings, got {'seed': 1}"),
    ],
)
def test_wrong_arguments_have_a_message(arguments: Any, options: dict[str, Any], message: str) -> None:
    for function in (era_cnn.compose, era_cnn.train, era_cnn.find_lr):
        with pytest.raises(era_cnn.ConfigError, match=message):
            function(arguments, **options)


def wrong_changes() -> dict[str, Any]:
    """What `model_copy` may do to a config, by what is wrong with it."""
    trainer = era_cnn.compose(SMALL).trainer
    return {
        "type": {"seed": "x"},
        "range": {"seed": -1},
        "unknown": {"nope": 3},
        "unknown within": {"trainer": trainer.model_copy(update={"nope": 3})},
        "between keys": {"trainer": trainer.model_copy(update={"epochs": 200})},
        "plain values": {"optimizer": {"name": "sgd", "lr": -1}},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("type", "seed must be a whole number, got 'x'."),
        ("range", "seed must be at least 0, got -1."),
        ("unknown", r"nope must be a key of the config \(name, "),
        ("unknown within", r"trainer\.nope must be a key of trainer \("),
        ("between keys", r"trainer\.epochs must be at most 15, the target of model_4, got 200"),
        ("plain values", r"optimizer\.lr must be greater than 0, got -1"),
    ],
)
def test_a_config_that_was_changed_is_checked_before_anything_begins(change: str, message: str, tmp_path: Path) -> None:
    config = era_cnn.compose(SMALL).model_copy(update=wrong_changes()[change])
    for function in (era_cnn.train, era_cnn.find_lr):
        with pytest.raises(era_cnn.ConfigError, match=f"^{message}"):
            function(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model_1", "model_4", "model_5", "cifar10_resnet9"])
def test_a_checked_config_is_the_same_config(name: str) -> None:
    config = config_of(f"experiment={name}")
    checked = _checked(config)
    assert (checked, checked.model_dump_json()) == (config, config.model_dump_json())


@pytest.mark.parametrize("folder", ["", " "])
def test_an_empty_folder_is_not_that_of_the_config(folder: str, tmp_path: Path) -> None:
    with pytest.raises(era_cnn.ConfigError, match=f"^folder must be a path .*, got '{folder}'"):
        era_cnn.train(SMALL, folder=folder)
    assert list(tmp_path.iterdir()) == []


def test_a_config_folder_goes_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    (tmp_path / "own" / "optimizer" / "mine.yaml").write_text("name: sgd\nlr: -3.0\n", encoding="utf-8")
    for function in (era_cnn.train, era_cnn.find_lr):
        with pytest.raises(era_cnn.ConfigError, match="config_dir must go with overrides, got 'own'"):
            function(era_cnn.compose(SMALL), config_dir="own")
        with pytest.raises(era_cnn.ConfigError, match=r"^optimizer\.lr must be greater than 0, got -3"):
            function([*SMALL, "optimizer=mine"], config_dir="own")


def test_listeners_are_checked_before_a_folder_is_made(tmp_path: Path) -> None:
    class Stranger:
        pass

    for each in (Stranger(), era_cnn.Listener):
        with pytest.raises(era_cnn.ConfigError, match=r"listeners must hold objects of era_cnn\.Listener"):
            era_cnn.train(SMALL, listeners=[each])  # type: ignore[list-item]
    for each in (None, era_cnn.Listener(), 3):
        with pytest.raises(era_cnn.ConfigError, match="listeners must be a list, got "):
            era_cnn.train(SMALL, listeners=each)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_config_can_be_pickled() -> None:
    config = era_cnn.compose([*SMALL, "augmentation=[rotate,affine]"])
    assert pickle.loads(pickle.dumps(config)) == config == parse(config.model_dump())


def test_what_is_not_there_has_a_message(tmp_path: Path) -> None:
    with pytest.raises(era_cnn.RunFolderError, match="RUN must be the folder of a run"):
        era_cnn.load("nowhere")
    run = era_cnn.train([*SMALL, "hydra.run.dir=run"], quiet=True)
    with pytest.raises(era_cnn.ConfigError, match="which must be one of last, best, ema, got 'first'"):
        run.network("first")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(era_cnn.ConfigError, match="device must "):
            run.network(device="cuda")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(era_cnn.RunFolderError, match="must hold a whole checkpoint"):
        run.network()


def test_a_class_that_is_defined_again_at_a_prompt_has_another_digest() -> None:
    from era_cnn.config.code_digests import plugin_digests

    text = "import era_cnn\n@era_cnn.scheduler('prompted')\ndef prompted():\n    return lambda step: {factor}\n"
    found = []
    for factor in (1.0, 1.0, 2.0):
        with nothing_stays_registered():
            exec(text.format(factor=factor), {"__name__": "__main__"})
            found.append(plugin_digests()["scheduler.prompted"])
    assert found[0] == found[1] != found[2]
