"""Do the faster paths train as well? Model-4 whole, with some seeds: by its name, compiled, and in the plain loop.

`python -m benchmarks seeds --rounds 3`. Needs MNIST (ERA_CNN_DATA).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

EPOCHS, BATCH_SIZE = 15, 64


def plain(data_dir: str, seed: int) -> None:
    """Trains Model-4 as the reference run did; prints the test accuracy after each epoch."""
    import torch
    from torch.utils.data import DataLoader

    from benchmarks.networks import mnist, model_4
    from benchmarks.plain import train_epoch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    train, test = (mnist(data_dir, train=part, rotate=part) for part in (True, False))
    loader, test_loader = DataLoader(train, BATCH_SIZE, shuffle=True), DataLoader(test, 1000)
    model = model_4()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=6, gamma=0.1)
    accuracies = []
    for _ in range(EPOCHS):
        train_epoch(model, loader, optimizer)
        scheduler.step()
        model.eval()
        with torch.no_grad():
            correct = sum(int((model(images).argmax(dim=1) == labels).sum()) for images, labels in test_loader)
        accuracies.append(correct / len(test))
    print(json.dumps({"best": max(accuracies), "final": accuracies[-1]}))


def fast(data_dir: str, seed: int, *more: str) -> None:
    """Trains Model-4 by its name."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["experiment=model_4", f"seed={seed}", "threads=1", "device=cpu", f"data.root={data_dir}", *more]
        command = [sys.executable, "-m", "era_cnn", *words, f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = json.loads(Path(folder, "run", "result.json").read_text(encoding="utf-8"))
    print(json.dumps({"best": result["best_test_accuracy"], "final": result["final_test_accuracy"]}))


def compiled(data_dir: str, seed: int) -> None:
    """The same through PyTorch's compiler."""
    fast(data_dir, seed, "trainer.compile=true")


PATHS = [each.__name__ for each in (fast, compiled, plain)]


def seeds(number: int) -> dict[str, Any]:
    """Each path with the seeds 1 to `number`; two trainings at a time, a thread each."""
    data_dir = os.path.abspath(os.environ.get("ERA_CNN_DATA", "data"))
    cases = [(path, seed) for seed in range(1, number + 1) for path in PATHS]

    def train(case: tuple[str, int]) -> dict[str, float]:
        program = f"from benchmarks.seeds import {case[0]}; {case[0]}({data_dir!r}, {case[1]})"
        done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        print(case, found, flush=True)
        return found

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(train, cases))
    return {
        path: {
            which: [result[which] for (name, _), result in zip(cases, results, strict=True) if name == path]
            for which in ("best", "final")
        }
        for path in PATHS
    }
