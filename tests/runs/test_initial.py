from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import era_cnn
from era_cnn.cli import main
from era_cnn.config.versions import digest
from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.models.build import build_from_config
from era_cnn.runs import initial
from era_cnn.runs.initial import COMPILED, fit_of, initial_weights, load_what_fits, with_source
from era_cnn.training.listeners import Listener, Training
from tests.conftest import config_of
from tests.helpers import slow_but_first
from tests.probes.averaging import StopIn

SMALL = [
    "data=digits", "trainer=smoke", "threads=1", "device=cpu", "trainer.limit_train_images=96",
    "trainer.limit_test_images=50", "trainer.batch_size=32",
]  # fmt: skip
FEWER = "model.layers.conv5.out_channels=8"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "source"
    assert main([*SMALL, "trainer.limit_epochs=2", f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def source(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "source"))


class Start(Listener):
    """Keeps the weights from before the first step."""

    is_essential = True

    def on_start(self, training: Training) -> None:
        self.weights = {name: tensor.clone() for name, tensor in training.state.network.state_dict().items()}


@pytest.mark.parametrize("which", slow_but_first(["last", "best"]))
def test_a_run_begins_with_the_weights_of_another(which: str, source: Path) -> None:
    start = Start()
    words = [*SMALL, "init_from=source", f"init_from_checkpoint={which}", "seed=2", "hydra.run.dir=run"]
    run = era_cnn.train(words, listeners=[start])
    expected = era_cnn.load("source").network(which).state_dict()
    assert all(torch.equal(tensor, start.weights[name]) for name, tensor in expected.items())
    assert run.config.init_from == str(source)
    assert run.config.init_from_sha256 is not None


def test_the_average_begins_with_them_as_well(source: Path) -> None:
    config = with_source(config_of(*SMALL, "init_from=source"))
    weights = initial_weights(config)
    assert weights is not None
    start = Start()
    start.on_start = lambda training: setattr(start, "weights", training.state.tensors())  # type: ignore[method-assign]
    era_cnn.train([*SMALL, "init_from=source", "trainer.ema_decay=0.9", "optimizer.lr=1e-12", "model.norm=none", FEWER],
                  listeners=[start])  # fmt: skip
    average = start.weights["ema.weights.conv1.conv.weight"]
    torch.testing.assert_close(average, weights["conv1.conv.weight"])


def test_what_does_not_fit_is_said_and_random(source: Path, command) -> None:
    code, out, err = command(*SMALL, "init_from=source", FEWER, "hydra.run.dir=run")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("Weights of source: ")]
    assert line.startswith("Weights of source: 26 of 32 tensors fit; other shape: conv5.conv.weight, conv5.norm.")
    assert "missing" not in line
    assert line in (Path("run") / "run.log").read_text(encoding="utf-8")


def test_names_tell_which_weights_belong_together() -> None:
    network = build_from_config(config_of())
    own = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
    del own["conv1.conv.weight"]
    own["conv2.conv.weight"] = own["conv2.conv.weight"].double()
    fit = fit_of(network, {**own, "more": torch.ones(1)})
    assert (fit.missing, fit.other_shape, fit.unused) == (["conv1.conv.weight"], ["conv2.conv.weight"], ["more"])
    assert "; other shape: conv2.conv.weight; missing: conv1.conv.weight; not used: more" in str(fit)
    load_what_fits(network, own)
    ones = {name for name, tensor in network.state_dict().items() if bool((tensor == 1).all())}
    assert ones >= own.keys() - {"conv2.conv.weight"}
    assert not ones & {"conv1.conv.weight", "conv2.conv.weight"}


def test_a_compiled_network_has_the_same_names(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_source(config_of(*SMALL, "init_from=source"))
    plain = initial_weights(config)
    assert plain is not None
    compiled = SimpleNamespace(state={"network": {f"{COMPILED}{name}": tensor for name, tensor in plain.items()}})
    monkeypatch.setattr(initial.Checkpoint, "from_bytes", lambda content, device: compiled)
    assert initial_weights(config).keys() == plain.keys()  # type: ignore[union-attr]


def test_the_digest_depends_on_the_weights_and_not_on_where_they_lie(source: Path) -> None:
    shutil.copytree(source, "elsewhere")
    here, there = (with_source(config_of(*SMALL, f"init_from={name}")) for name in ("source", "elsewhere"))
    assert digest(here) == digest(there) != digest(config_of(*SMALL))
    assert main([*SMALL, "seed=9", "hydra.run.dir=other"]) == 0
    assert digest(with_source(config_of(*SMALL, "init_from=other"))) != digest(here)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["init_from=nowhere"], 4, "init_from must be the folder of a run, got 'nowhere'. Give the path"),
        (["init_from=empty"], 4, "init_from must hold a whole checkpoint (last), got none in "),
        (["init_from=many"], 2, "init_from must be the folder of a run, not of a sweep, got 'many'. Give "),
        (["init_from=source", "experiment=model_2"], 2,
         "init_from must be a run whose network has a parameter of the same name and shape, got '3 of 23 tensors fit; "),
    ],
)  # fmt: skip
def test_what_cannot_be_begun_with_has_its_message_and_leaves_no_folder(
    words: list[str], code: int, said: str, source: Path, command, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "multirun.yaml").write_text("", encoding="utf-8")
    found, _, err = command(*SMALL, *words, "hydra.run.dir=run")
    assert (found, err.count("\n")) == (code, 1), err
    assert err.startswith(said)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_goes_on_without_its_source(source: Path, command, tmp_path: Path) -> None:
    words = [*SMALL, "trainer.limit_epochs=2", "init_from=source"]
    assert command(*words, "hydra.run.dir=whole")[0] == 0
    with pytest.raises(KeyboardInterrupt):
        era_cnn.train([*words, "hydra.run.dir=parts"], listeners=[StopIn(2, 1)])
    shutil.rmtree(source)
    code, _, err = command("resume", "parts")
    assert (code, err) == (0, "")
    fingerprints = [(tmp_path / name / "fingerprints.jsonl").read_text(encoding="utf-8") for name in ("whole", "parts")]
    assert fingerprints[0] == fingerprints[1]


def test_a_replay_needs_the_source_as_it_was(source: Path, command, tmp_path: Path) -> None:
    assert command(*SMALL, "init_from=source", "hydra.run.dir=run")[0] == 0
    code, out, err = command("replay", "run")
    assert (code, err) == (0, "")
    assert "Equal, bit for bit" in out
    shutil.move(source, tmp_path / "moved")
    code, _, err = command("replay", "run")
    assert code == 4
    assert "init_from must be the folder of a run, got 'source'. " in err
    assert "It is needed until the first checkpoint is saved, and for a replay." in err
    assert main([*SMALL, "seed=9", "hydra.run.dir=source"]) == 0
    code, _, err = command("replay", "run")
    assert code == 4
    assert "init_from must hold the weights that the run began with, SHA-256 " in err


def test_none_of_the_weights_is_an_error() -> None:
    with pytest.raises(ConfigError, match="init_from must be a run whose network has a parameter of the same name"):
        load_what_fits(torch.nn.Linear(1, 2), {"weight": torch.ones(3, 3)})


def test_a_tensor_larger_than_its_file_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = SimpleNamespace(state={"network": {"weight": torch.ones(1).expand(2**40)}})
    monkeypatch.setattr(initial.Checkpoint, "from_bytes", lambda content, device: endless)
    with pytest.raises(RunFolderError, match="init_from must hold a whole checkpoint"):
        with_source(config_of(*SMALL, "init_from=source"))
