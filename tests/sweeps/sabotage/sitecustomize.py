"""Lets jobs fail on purpose, in whatever process they are: each Python that has this folder in PYTHONPATH imports it.

SABOTAGE holds, as JSON, what happens to the run of a seed after its first epoch.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys


def _fail(way: str) -> None:
    import ctypes
    import signal
    import time

    import torch

    if way == "raise":
        raise RuntimeError("on purpose")
    if way == "sys.exit":
        sys.exit(3)
    if way == "os._exit":
        os._exit(7)
    if way == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "SIGSEGV":
        ctypes.string_at(0)
    if way == "SIGABRT":
        os.abort()
    if way == "memory":
        torch.empty(2**50)
    if way == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    if way == "wait":  # until a signal arrives, or the test says so
        stop = signal.getsignal(signal.SIGTERM).__self__
        while stop.number is None and not os.path.exists(os.path.join(os.environ["SABOTAGE_DIR"], "go")):
            time.sleep(0.01)
    if way.startswith("print "):
        print(way)
    if way.startswith("once "):  # fails, unless it has done so before
        try:
            os.mkdir(os.path.join(os.environ["SABOTAGE_DIR"], way.replace(" ", "_")))
        except FileExistsError:
            return
        _fail(way.removeprefix("once "))


class _Finder(importlib.abc.MetaPathFinder):
    """Patches the training once it is imported; importing it here would cost each process a second."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != "era_cnn.training.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_patch(module):  # type: ignore[no-untyped-def]
            execute(module)
            fit = module.fit

            import torch

            def sabotaged(*arguments, seed, **options):  # type: ignore[no-untyped-def]
                way = json.loads(os.environ["SABOTAGE"]).get(str(seed))
                if way == "diverge":
                    torch.nn.init.constant_(next(arguments[0].network.parameters()), float("inf"))
                for outcome in fit(*arguments, seed=seed, **options):
                    yield outcome
                    if way:
                        _fail(way)

            module.fit = sabotaged

        spec.loader.exec_module = execute_and_patch
        return spec


if "SABOTAGE" in os.environ:
    sys.meta_path.insert(0, _Finder())
