from __future__ import annotations

import math
from pathlib import Path

import pytest

from era_cnn.errors import ConfigError
from era_cnn.machine import SPIN_COUNT, available_cores, cpu_quota, load_of_others, spin_briefly
from era_cnn.runs.process import check_threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, math.inf),
        ("0::/a\n", {"b/cpu.max": "50000 100000\n"}, math.inf),
        ("4:cpu,cpuacct:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 3.0),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("4:memory:/a\n", {"memory/a/cpu.cfs_quota_us": "100", "memory/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("", {}, math.inf),
    ],
)  # fmt: skip
def test_the_quota_of_a_container_is_read(own: str, files: dict[str, str], quota: float, tmp_path: Path) -> None:
    write(tmp_path / "own", own)
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text)
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == quota


def test_without_control_groups_nothing_limits(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == math.inf


@pytest.mark.parametrize(("quota", "count"), [(math.inf, 4), (9.0, 4), (2.5, 2), (0.5, 1)])
def test_cores_are_counted_within_affinity_and_quota(quota: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {7, 1, 3, 5}, raising=False)
    monkeypatch.setattr("era_cnn.machine.cpu_quota", lambda: quota)
    assert available_cores() == [1, 3, 5, 7][:count]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": SPIN_COUNT}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_sleep_soon_unless_the_user_says_otherwise(before: dict[str, str], after: dict[str, str]) -> None:
    spin_briefly(before)
    assert before == after


@pytest.mark.parametrize(("load", "others"), [(3.5, 1.5), (0.5, 0.0)])
def test_the_load_of_others_is_what_a_run_does_not_use(
    load: float, others: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert load_of_others(2) == others


@pytest.mark.parametrize("value", ["true", "TRUE", " True "])
def test_threads_that_openmp_may_leave_out_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_DYNAMIC", value)
    with pytest.raises(ConfigError, match="^threads must be 1 if the environment variable OMP_DYNAMIC is true"):
        check_threads(2)
    check_threads(1)
    monkeypatch.setenv("OMP_DYNAMIC", "false")
    check_threads(2)
