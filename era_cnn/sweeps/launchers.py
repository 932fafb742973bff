"""The launchers that run jobs through plugins of Hydra: Slurm, and Ray.

A launcher takes only the keys that a config may set: nothing that runs a command, reads the environment or names a
folder. The patterns allow what Slurm's own names consist of, so that no value can become another option.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Annotated, Any

from pydantic import Field

from era_cnn.config.choices import launcher
from era_cnn.config.sections import NAME, Name, Section
from era_cnn.errors import ConfigError
from era_cnn.folders.sweep import SUBMITIT

Cores = Annotated[int, Field(ge=1, le=1024, description="the processor cores of a job")]
Minutes = Annotated[int, Field(ge=1, le=525_600, description="the time limit of a job in minutes")]
Gigabytes = Annotated[
    int | None, Field(ge=1, le=100_000, description="the memory of a job in GB, null for the default")
]
Gpus = Annotated[int | None, Field(ge=0, le=64, description="the number of GPUs of a job, null for the default")]
Partitions = Annotated[
    str | None,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,-]*$",
        max_length=200,
        description="the partitions to queue in: names, separated by commas",
    ),
]
OneName = Annotated[str | None, Field(pattern=NAME, max_length=80)]
Features = Annotated[
    str | None,
    Field(
        pattern=r"^[A-Za-z0-9_(\[][A-Za-z0-9_.,&|*()\[\]-]*$",
        max_length=200,
        description="the features that nodes must have, such as a100&nvlink",
    ),
]
Nodes = Annotated[
    str | None,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,\[\]-]*$",
        max_length=200,
        description="the nodes to avoid, such as node[1-4]",
    ),
]
Resources = Annotated[
    str | None,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:,-]*$",
        max_length=200,
        description="the resources of each node, such as gpu:a100:1",
    ),
]


def needs(
    launcher: str, package: str, extra: str, programs: Sequence[str] = (), asked: Callable[[], str] = lambda: ""
) -> Callable[[Section], None]:
    """A check that the plugin of a launcher is installed, and the programs that it starts.

    Args:
        launcher: The name of the launcher.
        package: The package of the plugin.
        extra: The extra that installs it.
        programs: The programs that must be found.
        asked: Asks what the launcher talks to, and returns what is wrong with it; empty if it answers.
    """

    def check(section: Section) -> None:
        if not (find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{package}")):
            rule, advice = "have its plugin, got none", f"Install it: pip install 'era_cnn[{extra}]'"
            raise ConfigError([f"hydra/launcher={launcher} must {rule}. {advice}"])
        if missing := [program for program in programs if which(program) is None]:
            rule = f"find {' and '.join(programs)}, got no {' and no '.join(missing)}"
            advice = "Start it on a machine of the cluster, or choose hydra/launcher=local"
            raise ConfigError([f"hydra/launcher={launcher} must {rule}. {advice}"])
        if complaint := asked():
            advice = "Wait until it is up, or choose hydra/launcher=local"
            raise ConfigError([f"hydra/launcher={launcher} must reach the controller, got: {complaint}. {advice}"])

    return check


SLURM_QUESTION = ("squeue", "--me", "--noheader")
SLURM_SECONDS = 30.0
"""How long to wait for an answer from Slurm."""


def ask_slurm() -> str:
    """Why Slurm's controller does not answer; empty if it does, or can't be asked."""
    try:
        answer = subprocess.run(SLURM_QUESTION, capture_output=True, text=True, check=False, timeout=SLURM_SECONDS)
    except FileNotFoundError:
        return ""
    except subprocess.TimeoutExpired:
        return f"no answer within {SLURM_SECONDS:.0f} seconds"
    return " ".join(answer.stderr.split()).rstrip(".") if answer.returncode else ""


@launcher("slurm", check=needs("slurm", "hydra_submitit_launcher", "slurm", ("sbatch", "srun"), ask_slurm))
def slurm(
    sweep_dir: Path,
    *,
    job_name: Annotated[
        Name, Field(description="the jobs' name in the queue: letters, digits, _, - and . only")
    ] = "era_cnn",
    partition: Partitions = None,
    account: Annotated[OneName, Field(description="the account to charge, a name")] = None,
    qos: Annotated[OneName, Field(description="the quality of service, a name")] = None,
    constraint: Features = None,
    exclude: Nodes = None,
    gres: Resources = None,
    gpus_per_node: Gpus = None,
    cpus_per_task: Cores,
    mem_gb: Gigabytes = None,
    timeout_min: Minutes = 240,
    array_parallelism: Annotated[
        int, Field(ge=1, le=10_000, description="the most jobs that run at the same time")
    ] = 256,
    signal_delay_s: Annotated[
        int, Field(ge=1, le=3600, description="the seconds from the signal to save until the end of a job")
    ] = 60,
    max_num_timeout: Annotated[
        int, Field(ge=0, le=100_000, description="how often a job may reach the time limit and be queued again")
    ] = 1000,
) -> dict[str, Any]:
    """Slurm, through submitit: an array of jobs with one task on one node each."""
    return {
        **_submitit("SlurmLauncher", sweep_dir),
        "name": job_name,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": cpus_per_task,
        "gpus_per_node": gpus_per_node,
        "mem_gb": mem_gb,
        "timeout_min": timeout_min,
        "partition": partition,
        "account": account,
        "qos": qos,
        "constraint": constraint,
        "exclude": exclude,
        "gres": gres,
        "array_parallelism": array_parallelism,
        "signal_delay_s": signal_delay_s,
        "max_num_timeout": max_num_timeout,
    }


@launcher("submitit_local", check=needs("submitit_local", "hydra_submitit_launcher", "slurm"))
def submitit_local(sweep_dir: Path, *, gpus_per_node: Gpus = None, timeout_min: Minutes = 240) -> dict[str, Any]:
    """Processes on this machine, all at once, through submitit: to try what Slurm will do."""
    limits = {"gpus_per_node": gpus_per_node, "timeout_min": timeout_min}
    return {**_submitit("LocalLauncher", sweep_dir), **limits}


def _submitit(launcher: str, sweep_dir: Path) -> dict[str, Any]:
    # Submitit runs what it unpickles from there, so each driver has a new folder, in which nobody has put anything.
    folder = sweep_dir / SUBMITIT / secrets.token_hex(8) / "%j"
    return {"_target_": f"{SUBMITIT_MODULE}.{launcher}", "submitit_folder": str(folder)}


@launcher("ray_cluster", check=needs("ray_cluster", "hydra_ray_launcher", "ray"))
def ray_cluster(
    *, cpus_per_task: Cores, gpus_per_task: Annotated[int, Field(ge=0, le=64, description="the GPUs of a job")] = 0
) -> dict[str, Any]:
    """Ray, on the cluster that the environment variable RAY_ADDRESS names, or on one of its own on this machine."""
    remote = {**_RAY_REMOTE, "num_cpus": cpus_per_task, "num_gpus": gpus_per_task}
    return {"_target_": RAY, "ray": {"init": dict(_RAY_INIT), "remote": remote}}


_RAY_INIT = {"address": None, "log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
_RAY_REMOTE = {"max_retries": 0}  # sweep.retries retries

SUBMITIT_MODULE = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
RAY = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"


# Sweeps that earlier versions recorded

_UNUSED: dict[str, Any] = {
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
    "tasks_per_node": 1,
    "nodes": 1,
    "stderr_to_stdout": False,
    "comment": None,
    "cpus_per_gpu": None,
    "gpus_per_task": None,
    "mem_per_gpu": None,
    "mem_per_cpu": None,
    "additional_parameters": {},
    "setup": None,
}
"""Keys of submitit's that earlier versions recorded without having set them."""


def renamed(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded section `hydra.launcher` in its current form; it used to hold all keys of Hydra's plugin.

    A key that was set and can no longer be expressed is kept, so that it is refused by its name.
    """
    values = {key: value for key, value in recorded.items() if key not in _UNUSED or value != _UNUSED[key]}
    target, job_name = values.pop("_target_", None), values.pop("name", None)
    if target == f"{SUBMITIT_MODULE}.SlurmLauncher":
        return {**values, "name": "slurm", "job_name": job_name}
    if target == f"{SUBMITIT_MODULE}.LocalLauncher":
        no_effect = ("cpus_per_task", "mem_gb")
        return {"name": "submitit_local", **{key: value for key, value in values.items() if key not in no_effect}}
    if target == RAY and values == {"ray": {"init": _RAY_INIT, "remote": {**_RAY_REMOTE, "num_cpus": "${threads}"}}}:
        return {"name": "ray_cluster", "cpus_per_task": "${threads}"}
    return dict(recorded)
