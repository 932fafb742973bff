"""The reference loop, as a user writes it: torchvision's loader and transforms, a bar that shows each step."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.contender import options, serve
from benchmarks.networks import NETWORKS, data_set


def train_epoch(model: torch.nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """Trains an epoch; returns the training accuracy."""
    model.train()
    correct = processed = 0
    with open(os.devnull, "w") as nowhere:
        bar = tqdm(loader, file=nowhere)
        for batch_id, (images, labels) in enumerate(bar):
            optimizer.zero_grad()
            logits = F.log_softmax(model(images), dim=-1)
            loss = F.nll_loss(logits, labels)
            loss.backward()
            optimizer.step()
            correct += logits.argmax(dim=1).eq(labels).sum().item()
            processed += len(images)
            bar.set_description(f"Loss={loss.item()} Batch_id={batch_id} Accuracy={100 * correct / processed:0.2f}")
    return correct / processed


def main() -> None:
    args = options()
    torch.set_num_threads(args.threads)
    loader = DataLoader(data_set(args.model, args.data, args.images), batch_size=args.batch_size, shuffle=True)
    model = NETWORKS[args.model](args.width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def round_() -> float:
        started = time.perf_counter()
        train_epoch(model, loader, optimizer)
        return time.perf_counter() - started

    serve(round_)


if __name__ == "__main__":
    main()
