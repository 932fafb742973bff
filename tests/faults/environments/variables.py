"""Environment variables: locales, colours, libraries, clusters, networks and time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.faults.environments.environment import Environment, loud, variables, with_file

NOWHERE = "http://127.0.0.1:9"


def _own_locale(name: str, encoding: str) -> Environment:
    """A locale of the system that is made for the trial; Python then takes its encoding for names and texts."""

    def prepare(place: Path) -> None:
        (place / "locales").mkdir()
        subprocess.run(["localedef", "-i", name, "-f", encoding, place / "locales" / name], check=True)

    values = {"LOCPATH": "PLACE/locales", "LC_ALL": name, "PYTHONUTF8": "0"}
    return Environment(values, prepare=prepare)


def _clock(change: str) -> Environment:
    """The clock as Python's `time` tells it."""

    def prepare(place: Path) -> None:
        (place / "clock").mkdir()
        (place / "clock" / "sitecustomize.py").write_text(
            f"import time\n_now = time.time\ntime.time = lambda: {change}\n"
        )

    return Environment({"PYTHONPATH": "PLACE/clock"}, prepare=prepare)


def _network(**values: str) -> Environment:
    """What a download meets: data that is missing, and a way to the network that does not work."""
    return Environment({"http_proxy": NOWHERE, "https_proxy": NOWHERE, **values}, commands=["mnist"])


SLURM = {
    "SLURM_JOB_ID": "12", "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_CPUS_ON_NODE": "1", "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_JOB_NODELIST": "a[1-4]", "SLURM_STEP_ID": "0",
}  # fmt: skip
PBS = {
    "PBS_JOBID": "12.a",
    "PBS_NODEFILE": "/nonexistent",
    "PBS_O_WORKDIR": "/nonexistent",
    "LSB_JOBID": "1",
    "JOB_ID": "1",
}
DISTRIBUTED = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3", "MASTER_ADDR": "a", "MASTER_PORT": "x"}
CI = {"CI": "true", "GITHUB_ACTIONS": "true", "GITLAB_CI": "true", "BUILD_NUMBER": "1"}
NOTEBOOK = {
    "COLAB_RELEASE_TAG": "x",
    "COLAB_GPU": "1",
    "JPY_PARENT_PID": "1",
    "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
    "IPYTHON": "1",
}
CONDA = {"CONDA_PREFIX": "/nonexistent", "CONDA_DEFAULT_ENV": "x", "VIRTUAL_ENV": "/nonexistent"}

VARIABLES: dict[str, Environment] = {
    # Locales
    "LC_ALL=C without UTF-8 mode": variables(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "LC_ALL=POSIX": variables(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "LC_ALL=nonsense": variables(LC_ALL="xx_YY.nonsense"),
    "LC_CTYPE of a Mac": variables(LC_CTYPE="UTF-8", LC_ALL=None, LANG=None),
    "UTF-8 mode": variables(PYTHONUTF8="1"),
    # Colours and dialogs
    "NO_COLOR": variables(NO_COLOR="1"),
    "FORCE_COLOR": variables(FORCE_COLOR="1", CLICOLOR_FORCE="1", PY_COLORS="1", CLICOLOR="1"),
    # Users and programs
    "no PATH": variables(PATH=None),
    "a PATH with the working folder": variables(PATH=":.::/nonexistent:/usr/bin:/bin"),
    "no variables": variables(**dict.fromkeys(os.environ)),
    "other users' names": variables(USER="x", LOGNAME="\x1b[2J", USERNAME="ä", SUDO_USER="root", SHELL="/bin/false"),
    "a variable that is not UTF-8": variables(NOTE="\udcff", LS_COLORS="\udce4"),
    "a megabyte of variables": Environment({f"NOTE{number}": "x" * 100_000 for number in range(10)}),
    # Hydra and the configuration
    "HYDRA_FULL_ERROR": variables(["run", "describe", "help"], HYDRA_FULL_ERROR="1", OC_CAUSE="1"),
    "HYDRA_MAIN_MODULE": variables(["run", "describe", "help"], HYDRA_MAIN_MODULE="nonsense.main"),
    # Threads and mathematics
    "OMP_NUM_THREADS=nonsense": variables(OMP_NUM_THREADS="x"),
    "OMP_NUM_THREADS=0": variables(OMP_NUM_THREADS="0"),
    "OMP_DYNAMIC": variables(OMP_DYNAMIC="true"),
    "OMP_THREAD_LIMIT": variables(OMP_THREAD_LIMIT="1"),
    "OMP_PROC_BIND": variables(OMP_PROC_BIND="close", OMP_PLACES="cores"),
    "OMP_PLACES that are not there": loud(OMP_PLACES="{1000}:2", OMP_PROC_BIND="true"),
    "OMP_STACKSIZE=nonsense": loud(OMP_STACKSIZE="x"),
    "OMP_DISPLAY_ENV": loud(OMP_DISPLAY_ENV="verbose"),
    "KMP": loud(KMP_AFFINITY="verbose,compact", KMP_BLOCKTIME="0", KMP_SETTINGS="1", KMP_STACKSIZE="1k"),
    "MKL_VERBOSE": loud(MKL_VERBOSE="2"),
    "ONEDNN_VERBOSE": loud(ONEDNN_VERBOSE="1", DNNL_VERBOSE="1"),
    "tqdm": variables(TQDM_DISABLE="1", TQDM_NCOLS="nonsense"),
    # PyTorch
    "TORCH_LOGS": loud(TORCH_LOGS="+all"),
    "TORCH_LOGS=nonsense": Environment({"TORCH_LOGS": "nonsense"}),
    "TORCH_CPP_LOG_LEVEL": loud(TORCH_CPP_LOG_LEVEL="INFO", TORCH_SHOW_CPP_STACKTRACES="1", TORCH_DISTRIBUTED_DEBUG="DETAIL"),
    "TORCH_HOME": with_file(TORCH_HOME="PLACE/file", TORCHINDUCTOR_CACHE_DIR="PLACE/file", TRITON_CACHE_DIR="PLACE/file"),
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": variables(TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1"),
    # Graphics cards
    "CUDA_VISIBLE_DEVICES": variables(CUDA_VISIBLE_DEVICES="7"),
    "CUDA_VISIBLE_DEVICES=nonsense": variables(CUDA_VISIBLE_DEVICES="GPU-x,,-1", NVIDIA_VISIBLE_DEVICES="void"),
    # Memory
    "MALLOC_PERTURB_": variables(MALLOC_PERTURB_="165"),
    "LD_PRELOAD of nothing": loud(LD_PRELOAD="/nonexistent.so"),
    # Charts
    "MPLBACKEND=nonsense": variables(["reported run"], MPLBACKEND="nonsense"),
    "MATPLOTLIBRC": with_file(["reported run"], b"nonsense: 1\nsvg.fonttype: x\n", MATPLOTLIBRC="PLACE/file"),
    # Networks
    "a proxy that is nonsense": _network(http_proxy="nonsense", https_proxy="://", HTTP_PROXY="nonsense"),
    "a proxy of another kind": _network(ALL_PROXY="socks5h://127.0.0.1:9", all_proxy="socks5://127.0.0.1:9"),
    "a proxy with a password": _network(https_proxy="http://me:se%20cret@127.0.0.1:9"),
    "certificates that are missing": _network(SSL_CERT_FILE="/nonexistent", SSL_CERT_DIR="/nonexistent", REQUESTS_CA_BUNDLE="/nonexistent"),
    # Where it runs
    "a job of Slurm": Environment({**SLURM}, commands=["sweep"]),
    "a job of torchrun": Environment({**DISTRIBUTED}, commands=["sweep"]),
    "a job of CI": Environment({**CI}),
    "a notebook's machine": Environment({**NOTEBOOK}),
    "an environment of conda that is gone": Environment({**CONDA}),
    # Time
    "TZ=nonsense": variables(TZ="XXX-24:59:59nonsense"),
    "TZ of a file that is missing": variables(TZ=":/etc/nonexistent"),
    "a clock in 1970": _clock("0.0"),
    "a clock in the year 2200": _clock("_now() + 174 * 365.25 * 86400"),
    "a clock that goes backwards": _clock("2e9 - time.monotonic()"),
}  # fmt: skip

HAS_LOCALES = shutil.which("localedef") is not None and Path("/usr/share/i18n/locales/tr_TR").exists()

if HAS_LOCALES:
    VARIABLES |= {
        "Turkish with its own encoding": _own_locale("tr_TR", "ISO-8859-9"),
        "Japanese with its own encoding": _own_locale("ja_JP", "EUC-JP"),
    }
