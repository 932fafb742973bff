"""What stands over the jobs of a sweep: read from their folders, which are the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.composition import PlannedJob
from era_cnn.runs.folder import RunFolder


@dataclass(frozen=True)
class JobRecord:
    """A job as its folder tells it: `state` is that of status.json, or `not started` if there is none."""

    number: int
    overrides: dict[str, str]
    state: str
    message: str
    result: dict[str, Any] | None
    folder: Path


def read_jobs(sweep_dir: Path, jobs: Sequence[PlannedJob]) -> list[JobRecord]:
    """What became of the jobs of a sweep, in the order of their numbers."""
    return [_read_job(sweep_dir / job.subdir, job) for job in jobs]


def _read_job(folder: Path, job: PlannedJob) -> JobRecord:
    status = RunFolder(folder).state()
    keys_and_values = (override.partition("=") for override in job.overrides)
    return JobRecord(
        number=job.number,
        overrides={key: value for key, _, value in keys_and_values},
        state=status["state"],
        message=status.get("message", ""),
        result=_read_json(folder / "result.json"),
        folder=folder,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def jobs_table(jobs: Sequence[JobRecord]) -> str:
    """A row a job: what was varied, how it ended, accuracies in percent; below it the messages of those that failed."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    varied = [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1] or keys
    head = ["job", *varied, "state", "best test", "final test", "seconds", "folder"]
    rows = [
        [
            str(job.number),
            *(job.overrides.get(key, "") for key in varied),
            job.state,
            *_figures(job.result),
            job.folder.name,
        ]
        for job in jobs
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    failures = [f"job {job.number}: {job.message}" for job in jobs if job.message]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:], *failures])


def _figures(result: dict[str, Any] | None) -> tuple[str, str, str]:
    if result is None:
        return "", "", ""
    return (
        f"{100 * result['best_test_accuracy']:.2f}%",
        f"{100 * result['final_test_accuracy']:.2f}%",
        f"{result['seconds']:.1f}",
    )
