"""The loggers, which show a training in other programs. The run folder stays the source of truth."""

from era_cnn.runs.loggers.mlflow import MLflow
from era_cnn.runs.loggers.tensorboard import TensorBoard
from era_cnn.runs.loggers.wandb import WandB

__all__ = ["MLflow", "TensorBoard", "WandB"]
