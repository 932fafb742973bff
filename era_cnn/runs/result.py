"""Computes the result of a run from its history."""

from __future__ import annotations

from era_cnn.config.schema import RunConfig, watchers
from era_cnn.folders.result import SCHEMA, Result
from era_cnn.models.build import count_params
from era_cnn.runs.parts import Parts
from era_cnn.training.fingerprint import weights_sha256
from era_cnn.training.history import History


def make_result(config: RunConfig, history: History, parts: Parts, *, origin: dict[str, str]) -> Result:
    """The result of a completed run.

    Args:
        config: The config of the run.
        history: All epochs; the last one was evaluated on the test set.
        parts: What was trained; the network has its final weights.
        origin: The digests of config and data, `config_sha256` and `data_sha256`.
    """
    final, best_test, best_val = history[-1], history.best("test"), history.best("val")
    assert final.test is not None, "the last epoch is always tested"
    assert best_test is not None, "so there is a best one"
    assert best_test.test is not None, "which was tested"
    seconds = sum(metrics.seconds for metrics in history)
    return Result(
        schema=SCHEMA,
        experiment=config.name,
        seed=config.seed,
        params=count_params(parts.state.network),
        epochs=len(history),
        best_test_accuracy=best_test.test.accuracy,
        best_test_epoch=best_test.epoch,
        final_test_accuracy=final.test.accuracy,
        best_train_accuracy=max(metrics.train_accuracy for metrics in history),
        final_train_accuracy=final.train_accuracy,
        final_test_loss=final.test.loss,
        best_val_accuracy=best_val.val.accuracy if best_val and best_val.val else None,
        best_val_epoch=best_val.epoch if best_val else None,
        final_val_accuracy=final.val.accuracy if final.val else None,
        target={
            **config.target.model_dump(exclude={"min_receptive_field", "requires"}),
            "met": _is_met(config, best_test.test.accuracy),
        },
        weights_sha256=weights_sha256(parts.state.network),
        config_sha256=origin["config_sha256"],
        data_sha256=origin["data_sha256"],
        seconds=round(seconds, 3),
        images_per_second=round(parts.train.images_per_epoch * len(history) / seconds, 1) if seconds else 0.0,
        watched=config.trainer.watch if watchers(parts.schedule, config.trainer) else None,
        end_reason=final.end_reason,
        ema_val_accuracy=final.ema_val.accuracy if final.ema_val else None,
        ema_test_accuracy=final.ema_test.accuracy if final.ema_test else None,
    )


def _is_met(config: RunConfig, best_test_accuracy: float) -> bool | None:
    """Whether the target accuracy was reached. Limits are enforced earlier.

    None if there is no target, or not all test images were used.
    """
    wanted = config.target.test_accuracy
    has_target = any(value not in (None, []) for value in config.target.model_dump().values())
    if not has_target or (wanted is not None and "limit_test_images" in config.limits):
        return None
    return wanted is None or best_test_accuracy >= wanted
