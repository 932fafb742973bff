"""The same recipe in Lightning, with its default loaders, bar and logger; runs in an environment of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.contender import options, serve
from benchmarks.networks import NETWORKS, data_set


class Classifier(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log_dict({"loss": loss, "accuracy": accuracy}, prog_bar=True, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Clock(lightning.Callback):
    def on_train_epoch_start(self, *arguments: object) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, *arguments: object) -> None:
        self.seconds = time.perf_counter() - self.started


def main() -> None:
    args = options()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    loader = DataLoader(data_set(args.model, args.data, args.images), batch_size=args.batch_size, shuffle=True)
    classifier, clock = Classifier(NETWORKS[args.model](args.width)), Clock()

    def round_() -> float:
        with (
            tempfile.TemporaryDirectory() as folder,
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, callbacks=[clock])
            trainer.fit(classifier, loader)
        return clock.seconds

    serve(round_)


if __name__ == "__main__":
    main()
