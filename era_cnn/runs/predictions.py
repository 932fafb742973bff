"""The predictions of a trained network for the test set, for predictions.npz."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from era_cnn.config.schema import RunConfig
from era_cnn.errors import RunFolderError
from era_cnn.folders.checkpoints import CheckpointFolder
from era_cnn.runs.parts import Parts
from era_cnn.runs.stopping import Interruptible, StopRequest
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.evaluate import Evaluation, evaluate
from era_cnn.training.fingerprint import fingerprint
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.state import load_weights


def predict_test_set(
    config: RunConfig,
    parts: Parts,
    history: History,
    checkpoints: CheckpointFolder,
    stop: StopRequest,
    warn: Callable[[str], None],
) -> dict[str, NDArray[Any]]:
    """Evaluates the final weights on the test set and, if validation images chose the best ones, those as well.

    Returns:
        Arrays by name, N images, K classes: `labels` (N,), `predicted` (N,), `logits` (N, K), and of the best weights
        `best_predicted` and `best_logits`.
    """
    network, test = parts.state.network, Interruptible(parts.test, stop)
    final = evaluate(network, test, precision=config.precision)
    arrays = {"labels": final.labels.cpu().numpy(), **_named(final, "")}
    best = history.best()
    if parts.val is None or best is None:
        return arrays
    if best is history[-1]:
        return {**arrays, **_named(final, "best_")}
    final_weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        _load_best(best, parts, checkpoints)
        return {**arrays, **_named(evaluate(network, test, precision=config.precision), "best_")}
    except RunFolderError as error:  # all epochs are done: a lost copy of the weights is no reason to fail
        warn(f"predictions.npz has no predictions of the best weights: {error}")
        return arrays
    finally:
        network.load_state_dict(final_weights)


def _load_best(best: EpochMetrics, parts: Parts, checkpoints: CheckpointFolder) -> None:
    """Loads the weights of the best epoch.

    Raises:
        RunFolderError: If the checkpoint is missing or damaged, or holds other weights than that epoch ended with.
    """
    content = checkpoints.best(epoch=best.epoch)
    if content is None:
        raise RunFolderError("the best checkpoint is damaged or missing.")
    load_weights(parts.state.network, Checkpoint.from_bytes(content, parts.state.device).state["network"])
    expected = {name: sha256 for name, sha256 in best.fingerprint.items() if name.startswith("weights.")}
    if not expected.items() <= fingerprint(parts.state, parts.train.order(best.epoch)).items():
        raise RunFolderError(f"the best checkpoint must hold the weights of epoch {best.epoch}, got others.")


def _named(evaluation: Evaluation, prefix: str) -> dict[str, NDArray[np.generic]]:
    return {
        f"{prefix}predicted": evaluation.predictions().cpu().numpy(),
        f"{prefix}logits": evaluation.logits.cpu().numpy(),
    }
