"""Fine-tuning: a training that begins with the weights of another run, as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, EraCnnError, RunFolderError, problem
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import open_folder
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.fingerprint import tensors_sha256

COMPILED = "_orig_mod."
"""The prefix of the names of a compiled network."""


def with_source(config: RunConfig) -> RunConfig:
    """The config with the digest of the weights that it begins with, so that it depends on them and not on a path.

    Raises:
        ConfigError: If `init_from` is the folder of a sweep.
        RunFolderError: If it is not the folder of a run with a whole checkpoint.
    """
    if config.init_from is None or config.init_from_sha256 is not None:
        return config
    return config.model_copy(update={"init_from_sha256": tensors_sha256(_read(config.init_from, config))})


def initial_weights(config: RunConfig) -> dict[str, Tensor] | None:
    """The weights of the run that `init_from` names, by name, on the CPU; None if it names none.

    Raises:
        RunFolderError: If the folder is gone, damaged, or holds other weights than those of `init_from_sha256`.
    """
    if config.init_from is None:
        return None
    weights = _read(config.init_from, config)
    if (sha256 := tensors_sha256(weights)) != config.init_from_sha256:
        raise RunFolderError(
            f"init_from must hold the weights that the run began with, SHA-256 {config.init_from_sha256}, got "
            f"{sha256}. Restore {config.init_from}."
        )
    return weights


def _read(path: str, config: RunConfig) -> dict[str, Tensor]:
    which = config.init_from_checkpoint
    try:
        content = _content(open_folder(Path(path), "init_from"), which)
        state: object = Checkpoint.from_bytes(content, torch.device("cpu")).state if content else None
    except EraCnnError as error:
        if config.init_from_sha256 is None:
            raise
        needed = "It is needed until the first checkpoint is saved, and for a replay."
        raise RunFolderError(f"{error} {needed}") from error
    stored = state.get("network") if isinstance(state, Mapping) else None
    if not isinstance(stored, Mapping) or not all(map(_is_whole, stored.values())):
        got = f"none in {path}"
        raise RunFolderError(f"init_from must hold a whole checkpoint ({which}), got {got}. Resume that run.")
    return {str(name).removeprefix(COMPILED): tensor for name, tensor in stored.items()}


def _content(folder: RunFolder, which: str) -> bytes | None:
    if which == "best":
        return folder.checkpoints.best()
    found = folder.checkpoints.newest()
    return found.content if found else None


def _is_whole(value: object) -> bool:
    """Whether a value is a tensor that takes no more memory than the file holds."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


@dataclass(frozen=True)
class Fit:
    """The names of a network's tensors, by whether others have one of the same name, shape and type."""

    same: list[str]
    other_shape: list[str]
    missing: list[str]
    unused: list[str]

    def __str__(self) -> str:
        counts = f"{len(self.same)} of {len(self.same) + len(self.other_shape) + len(self.missing)} tensors fit"
        rest = {"other shape": self.other_shape, "missing": self.missing, "not used": self.unused}
        return "; ".join([counts, *(f"{what}: {', '.join(names)}" for what, names in rest.items() if names)])


def fit_of(network: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """How the weights of another network fit a network."""
    own = network.state_dict()
    shared = [name for name in own if name in weights]
    same = [name for name in shared if _kind(own[name]) == _kind(weights[name])]
    return Fit(
        same,
        [name for name in shared if name not in same],
        [name for name in own if name not in weights],
        [name for name in weights if name not in own],
    )


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype


def load_what_fits(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies the weights that fit into a network.

    Raises:
        ConfigError: If no parameter does; the counters of batch norm always fit.
    """
    fit = fit_of(network, weights)
    if not {name for name, _ in network.named_parameters()} & set(fit.same):
        rule = "be a run whose network has a parameter of the same name and shape"
        raise ConfigError([problem("init_from", rule, str(fit), "Choose another run.")])
    network.load_state_dict({name: weights[name] for name in fit.same}, strict=False)
