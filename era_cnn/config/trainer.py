"""The part of the schema that describes a training: its length, its batches, and what happens to loss and gradients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from era_cnn.config.sections import Count, Name, NoEffect, Section

Limit = Count | None

ClassWeights = Annotated[
    Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Tag("[list]")]
    | Annotated[Literal["balanced"], Tag("[name]")],
    Discriminator(lambda value: "[name]" if isinstance(value, str) else "[list]"),
]
Watch = Literal["val_loss", "val_accuracy", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]


class EarlyStopping(Section):
    """When a training ends before its last epoch, since `trainer.watch` has not become better."""

    patience: Count | None = Field(
        default=None, description="the evaluations in a row without a better value after which to stop, null to go on"
    )
    min_delta: float = Field(
        default=0.0, ge=0, le=1e6, description="by how much a value must be better than the best one to count"
    )
    min_epochs: Count = Field(default=1, description="the epochs that are trained in any case")


class TrainerConfig(Section):
    """How long a network is trained, with what batch sizes, and what happens to loss, gradients and weights."""

    name: Annotated[Name, NoEffect()]
    epochs: Count = Field(description="the number of passes over the training set; for a quick check use trainer=smoke")
    batch_size: Count = Field(description="the number of images in one parameter update")
    drop_last: bool = Field(
        default=False,
        description="true or false: whether the last images of an epoch are left out if they fill no batch",
    )
    unaugmented_epochs: int = Field(
        default=0, ge=0, le=10**9, description="the number of last epochs that train without augmentation"
    )
    eval_batch_size: Count = Field(description="the number of images evaluated at a time")
    eval_every_epochs: Count = Field(default=1, description="the number of epochs from one evaluation to the next")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="the probability mass taken from the true class in training, in [0, 1)"
    )
    class_weights: ClassWeights | None = Field(
        default=None,
        description="a weight in the training loss for each class, as [1, 2.5], balanced for those that even out the "
        "numbers of images, or null",
    )
    l1: float = Field(default=0.0, ge=0, le=1e6, description="the factor of the L1 penalty on the weights, 0 for none")
    clip_grad_value: float | None = Field(
        default=None, gt=0, le=1e9, description="the largest magnitude of each gradient, null for any"
    )
    clip_grad_norm: float | None = Field(
        default=None, gt=0, le=1e9, description="the largest norm of all gradients together, null for any"
    )
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="the decay of the moving average of the weights, null for no average"
    )
    watch: Watch = Field(
        default="val_loss",
        description="what scheduler=plateau, trainer.early_stopping and trainer.stop_at_target watch",
    )
    early_stopping: EarlyStopping = Field(
        default=EarlyStopping(), description="a mapping, such as {patience: 5}; see trainer.watch"
    )
    stop_at_target: bool = Field(
        default=False,
        description="true or false: whether to stop at target.test_accuracy on the split of trainer.watch",
    )
    checkpoint_every_seconds: Annotated[float | None, NoEffect()] = Field(
        default=None,
        gt=0,
        description="the seconds between two checkpoints within an epoch, null for none; each epoch ends with one",
    )
    compile: bool = Field(
        default=False, description="true or false: whether the training step goes through PyTorch's compiler"
    )
    cuda_graphs: bool = Field(default=False, description="true or false: whether a CUDA device replays a recorded step")
    limit_epochs: Limit = Field(
        default=None, description="the number of epochs after which to stop, null for all of them"
    )
    limit_train_images: Limit = Field(
        default=None, description="the number of training images to use, null for all of them"
    )
    limit_test_images: Limit = Field(default=None, description="the number of test images to use, null for all of them")
    repeat_train_images: int = Field(
        default=1, ge=1, le=10**6, description="how often each training image occurs in an epoch"
    )
    required_train_accuracy: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="the fraction of the training images, as they are, that the network must get right in the end, or "
        "the run fails; null for any",
    )
    profile: Annotated[bool, NoEffect()] = Field(
        default=False,
        description="true or false: whether PyTorch's profiler watches a few steps and writes profile.txt and "
        "profile.json.gz",
    )

    @property
    def epochs_to_run(self) -> int:
        """The number of epochs that are trained: that of the recipe, unless a limit ends it sooner."""
        return min(self.epochs, self.limit_epochs or self.epochs)

    def steps_per_epoch(self, num_images: int) -> int:
        """The number of parameter updates in an epoch of so many images; 0 if `drop_last` leaves none."""
        return num_images // self.batch_size if self.drop_last else -(-num_images // self.batch_size)
