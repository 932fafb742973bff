from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
{prepare}
def use():
    kept = [torch.ones(2**20) for _ in range(10)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): use()
before = faults()
for _ in range(10): use()
print(faults() - before)
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    def pages(prepare: str) -> int:
        # Whether the library gives memory back depends on where it lies; with this it does so always, unless told not to.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        command = [sys.executable, "-c", FAULTS.format(prepare=prepare)]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert pages("from era_cnn.runs.process import keep_memory; keep_memory(); torch.set_num_threads(1)") < 1000
    assert pages("torch.set_num_threads(1)") > 10_000  # 40 MiB a time, in pages of 4 KiB
