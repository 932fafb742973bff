"""Each launcher takes the keys of its schema and no others, wherever they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from era_cnn.compose import launchers as module
from era_cnn.compose.composition import compose_sweep
from era_cnn.compose.launchers import LauncherPlugin, launcher_of
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words
from era_cnn.config.choices import LAUNCHERS
from era_cnn.errors import ConfigError
from era_cnn.folders.sweep import RECORD
from era_cnn.sweeps import launchers, plugin
from era_cnn.sweeps.launchers import RAY, SUBMITIT_MODULE, renamed
from tests.helpers import nothing_stays_registered
from tests.sweeps.conftest import SMALL, outcomes_of

NAMES = ["basic", "local", *LAUNCHERS]


@pytest.fixture(autouse=True)
def _every_plugin_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda name: True)
    monkeypatch.setattr(launchers, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(launchers, "SLURM_QUESTION", ("true",))


def section(*overrides: str, config_dir: str | None = None) -> Any:
    return launcher_of(compose_sweep(Words(list(overrides), config_dir=config_dir)))


def problems(*overrides: str, config_dir: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        section(*overrides, config_dir=config_dir)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("name", NAMES)
def test_every_launcher_can_be_chosen(name: str) -> None:
    assert getattr(section(f"hydra/launcher={name}", "threads=3"), "cpus_per_task", 3) == 3


HOSTILE = [
    ("additional_parameters", "{export: 'ALL,LD_PRELOAD=x'}"),
    ("additional_parameters", "{output: /tmp/x}"),
    ("additional_parameters", "{chdir: /tmp}"),
    ("setup", "[reboot]"),
    ("srun_args", "['--export=ALL']"),
    ("env_set", "{A: b}"),
    ("python", "/tmp/x"),
    ("command", "reboot"),
    ("dependency", "singleton"),
    ("submitit_folder", "/tmp/x"),
    ("folder", "/tmp/x"),
    ("stderr_to_stdout", "true"),
    ("comment", "x"),
    ("nodes", "2"),
    ("tasks_per_node", "2"),
    ("ray", "{init: {_temp_dir: /tmp/x}}"),
    ("ray", "{init: {runtime_env: {pip: [x]}}}"),
    ("ray", "{init: {address: 'ray://elsewhere:1'}}"),
    ("ray", "{remote: {runtime_env: {}}}"),
    ("ray_init", "{}"),
    ("x", "1"),
]


ROUNDS = [
    dict(HOSTILE),
    dict(reversed(HOSTILE)),
    {"additional_parameters": "{output: /tmp/x}"},
    *({"ray": value} for key, value in HOSTILE if key == "ray"),
]
"""All of them, in as few configs as can hold them: every problem of a config is reported at once."""


@pytest.mark.slow
@pytest.mark.parametrize("keys", ROUNDS)
@pytest.mark.parametrize("name", NAMES)
def test_keys_that_are_not_in_the_schema_are_refused(name: str, keys: dict[str, str], tmp_path: Path) -> None:
    typed = problems(f"hydra/launcher={name}", *(f"+hydra.launcher.{key}={value}" for key, value in keys.items()))
    assert all(f"hydra.launcher.{key} must " in typed for key in keys)
    if name != "basic":
        path = tmp_path / "own" / "hydra" / "launcher" / "mine.yaml"
        path.parent.mkdir(parents=True)
        lines = [f"defaults: [{name}]", *(f"{key}: {value}" for key, value in keys.items())]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written = problems("hydra/launcher=mine", config_dir=str(tmp_path / "own"))
        assert all(f"hydra.launcher.{key} must " in written for key in keys)


TEXTS = ("partition", "account", "qos", "constraint", "exclude", "gres", "job_name")
INJECTIONS = [
    "a b",
    "a --wrap=x",
    "a\nreboot",
    "$(reboot)",
    "`reboot`",
    "a;b",
    "a\\",
    "-x",
    "--x",
    '"',
    "a=b",
    "/tmp/x",
    "ä",
    "",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_names_of_slurms_have_only_the_characters_of_one(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own" / "hydra" / "launcher" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"defaults": ["slurm"], **dict.fromkeys(TEXTS, text)}), encoding="utf-8")
    found = problems("hydra/launcher=mine", config_dir=str(tmp_path / "own"))
    assert all(f"hydra.launcher.{key} must be a name, got " in found for key in TEXTS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition", "gpu,gpu-long"),
        ("account", "lab_1"),
        ("qos", "high"),
        ("constraint", "[a100|h100]&nvlink"),
        ("exclude", "node[1-4,7],gpu3"),
        ("gres", "gpu:a100:2,shard:1"),
        ("mem_gb", 16),
        ("gpus_per_node", 2),
        ("timeout_min", 30),
        ("array_parallelism", 8),
        ("cpus_per_task", 4),
        ("job_name", "mine"),
    ],
)
def test_what_a_cluster_needs_can_be_given_and_reaches_submitit(key: str, value: Any, tmp_path: Path) -> None:
    found = section("hydra/launcher=slurm", f"hydra.launcher.{key}={value!r}".replace("'", '"'))
    assert getattr(found, key) == value
    node = LAUNCHERS.make("slurm", found, sweep_dir=tmp_path)
    assert node["name" if key == "job_name" else key] == value
    assert (node["nodes"], node["tasks_per_node"]) == (1, 1)
    assert Path(node["submitit_folder"]).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("timeout_min", "0", "be at least 1"),
        ("timeout_min", "1e9", "be a whole number"),
        ("mem_gb", "x", "be a whole number"),
        ("cpus_per_task", "2000", "be at most 1,024"),
        ("gpus_per_node", "-1", "be at least 0"),
        ("array_parallelism", "0", "be at least 1"),
        ("signal_delay_s", "true", "be a whole number"),
        ("cpus_per_task", "'${oc.env:HOME}'", "read no environment variable"),
        ("cpus_per_task", "'${nope}'", "have a value"),
    ],
)
def test_a_wrong_value_is_refused(key: str, value: str, rule: str) -> None:
    assert f"hydra.launcher.{key} must {rule}" in problems("hydra/launcher=slurm", f"hydra.launcher.{key}={value}")


@pytest.mark.parametrize("name", ["slurm", "submitit_local"])
def test_submitit_knows_each_key_that_it_is_given(name: str, tmp_path: Path) -> None:
    config = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    node = LAUNCHERS.make(name, section(f"hydra/launcher={name}"), sweep_dir=tmp_path)
    known = config.SlurmQueueConf if name == "slurm" else config.LocalQueueConf
    assert node.keys() <= known.__dataclass_fields__.keys()


def test_a_launcher_without_its_plugin_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, command) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    for name, extra in (("slurm", "slurm"), ("submitit_local", "slurm"), ("ray_cluster", "ray")):
        code, _, err = command("-m", "data=digits", f"hydra/launcher={name}", "seed=1,2")
        message = f"hydra/launcher={name} must have its plugin, got none. Install it: pip install 'era_cnn[{extra}]'\n"
        assert (code, err) == (2, message)
        assert not Path("multirun").exists()


@pytest.mark.parametrize(
    ("found", "got"), [([], "no sbatch and no srun"), (["sbatch"], "no srun"), (["srun"], "no sbatch")]
)
def test_a_machine_without_slurm_is_found_before_anything_is_planned(
    found: list[str], got: str, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    monkeypatch.setattr(launchers, "which", lambda program: program if program in found else None)
    monkeypatch.setattr(Planner, "plan", None)
    code, out, err = command("-m", *SMALL, "hydra/launcher=slurm", "seed=1,2")
    message = f"hydra/launcher=slurm must find sbatch and srun, got {got}. Start it on a machine of the cluster, or "
    assert (code, out, err) == (2, "", f"{message}choose hydra/launcher=local\n")
    assert not Path("multirun").exists()
    assert command("hydra/launcher=slurm", "--cfg", "hydra")[0] == 0  # a question needs no Slurm


# Launchers of others


PLUGIN = """
from typing import Annotated
from pydantic import Field
import era_cnn

@era_cnn.launcher("mine")
def mine(sweep_dir, *, n_jobs: Annotated[int, Field(ge=1, le=9, description="the most jobs at a time")] = 2):
    return {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
"""


@pytest.mark.slow
def test_a_plugin_registers_a_launcher_with_its_schema(tmp_path: Path, command) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    words = ["--plugin", "mine.py", "-m", *SMALL, "seed=1", "hydra/launcher=mine", "hydra.sweep.dir=sweep"]
    with nothing_stays_registered():
        code, _, err = command(*words, "hydra.launcher.n_jobs=10")
        assert (code, err.partition(", got")[0]) == (2, "hydra.launcher.n_jobs must be at most 9")
        code, _, err = command(*words, "+hydra.launcher.setup=[x]")
        assert (code, "hydra.launcher.setup must be a key of hydra.launcher (name, n_jobs)" in err) == (2, True)
        code, out, err = command(*words)
        assert code == 0, out + err
        assert yaml.safe_load((tmp_path / "sweep" / RECORD).read_text(encoding="utf-8"))["hydra"]["launcher"] == {
            "name": "mine",
            "n_jobs": 2,
        }
    code, _, err = command("resume", "sweep")  # the plugin has to be named again
    assert (code, err.partition(", got")[0].split(" must ")[0]) == (2, "hydra.launcher.name")


def test_a_job_needs_neither_the_launcher_nor_its_plugin_to_be_composed(tmp_path: Path, monkeypatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(module, "make_launcher", lambda loader, composed, task: made.append(composed))
    words = Words(["hydra/launcher=slurm", "hydra.launcher.partition=main", f"hydra.sweep.dir={tmp_path}"])
    LauncherPlugin(words, compose_sweep(words), tmp_path, lambda sweep_dir, path: 0)
    assert made[0].hydra.overrides.hydra == []
    assert made[0].hydra.launcher.partition == "main"
    folder = Path(made[0].hydra.launcher.submitit_folder)
    assert (folder.name, folder.parents[1]) == ("%j", tmp_path / ".submitit")
    LauncherPlugin(words, compose_sweep(words), tmp_path, lambda sweep_dir, path: 0)
    assert made[1].hydra.launcher.submitit_folder != str(folder)  # nobody can have put a pickle there before


# Recorded sweeps

SLURM = {
    "_target_": f"{SUBMITIT_MODULE}.SlurmLauncher",
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
    "timeout_min": 240,
    "cpus_per_task": "${threads}",
    "gpus_per_node": None,
    "tasks_per_node": 1,
    "mem_gb": None,
    "nodes": 1,
    "name": "era_cnn",
    "stderr_to_stdout": False,
    "partition": "main",
    "qos": None,
    "comment": None,
    "constraint": None,
    "exclude": None,
    "gres": None,
    "cpus_per_gpu": None,
    "gpus_per_task": None,
    "mem_per_gpu": None,
    "mem_per_cpu": None,
    "account": None,
    "signal_delay_s": 60,
    "max_num_timeout": 1000,
    "additional_parameters": {},
    "array_parallelism": 256,
    "setup": None,
}
LOCAL = {key: SLURM[key] for key in list(SLURM)[:10]} | {
    "_target_": f"{SUBMITIT_MODULE}.LocalLauncher",
    "name": "${hydra.job.name}",
}
INIT = {"address": None, "log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
ON_RAY = {"_target_": RAY, "ray": {"init": INIT, "remote": {"num_cpus": "${threads}", "max_retries": 0}}}


@pytest.fixture
def recorded(fake_sweep, tmp_path: Path) -> Any:
    """A complete sweep, and a function that replaces the launcher in its multirun.yaml and resumes it."""
    assert fake_sweep("-m", *SMALL, "seed=1", "hydra.sweep.dir=sweep").returncode == 0

    def resume(launcher: Any, *words: str) -> Any:
        path = tmp_path / "sweep" / RECORD
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values["hydra"]["launcher"] = launcher
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return fake_sweep("resume", "sweep", *words)

    return resume


@pytest.mark.parametrize("launcher", [SLURM, LOCAL, ON_RAY], ids=["slurm", "submitit_local", "ray_cluster"])
def test_a_sweep_of_an_earlier_version_is_resumed(launcher: dict[str, Any], recorded) -> None:
    done = recorded(launcher)
    assert done.returncode == 0, done.stderr
    assert renamed(launcher)["name"] in LAUNCHERS


def test_a_recorded_launcher_keeps_its_values() -> None:
    assert renamed(SLURM) == {
        "name": "slurm", "job_name": "era_cnn", "timeout_min": 240, "cpus_per_task": "${threads}", "gpus_per_node": None,
        "mem_gb": None, "partition": "main", "qos": None, "constraint": None, "exclude": None, "gres": None,
        "account": None, "signal_delay_s": 60, "max_num_timeout": 1000, "array_parallelism": 256,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ({**SLURM, "additional_parameters": {"export": "ALL,LD_PRELOAD=x"}}, "hydra.launcher.additional_parameters must be a key of"),
        ({**SLURM, "setup": ["reboot"]}, "hydra.launcher.setup must be a key of"),
        ({**SLURM, "submitit_folder": "/tmp/x"}, "hydra.launcher.submitit_folder must be a key of"),
        ({**SLURM, "nodes": 2}, "hydra.launcher.nodes must be a key of"),
        ({**SLURM, "name": "x --wrap=y"}, "hydra.launcher.job_name must be a name"),
        ({**LOCAL, "setup": ["reboot"]}, "hydra.launcher.setup must be a key of"),
        ({**ON_RAY, "ray": {"init": {**INIT, "address": "ray://x:1"}}}, "hydra.launcher._target_ must not be given"),
        ({"_target_": "os.getcwd"}, "hydra.launcher._target_ must not be given"),
        ({"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}, "hydra.launcher._target_ must not be given"),
        ({"name": "joblib"}, "hydra.launcher.name must be one of basic, local, ray_cluster, slurm, submitit_local, got 'joblib'."),
        ({"name": ["local"]}, "hydra.launcher.name must be one of basic"),
        ({}, "hydra.launcher.name must be one of basic"),
        ({"name": "local", "n_jobs": 0}, "hydra.launcher.n_jobs must be at least 1"),
        ({"name": "local", "n_jobs": 1, "x": {"_target_": "os.getcwd"}}, "hydra.launcher.x._target_ must not be given"),
        ({"name": "slurm", "cpus_per_task": "${oc.env:HOME}"}, "hydra.launcher.cpus_per_task must read no environment"),
    ],
)  # fmt: skip
def test_a_strangers_sweep_is_resumed_only_with_what_its_launcher_takes(launcher: Any, message: str, recorded) -> None:
    done = recorded(launcher)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert recorded(launcher, "hydra/launcher=local").returncode == 0


@pytest.mark.parametrize(
    ("script", "got"),
    [
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
        ("exec sleep 5", "no answer within 0 seconds"),
    ],
)  # fmt: skip
def test_a_controller_that_is_down_is_found_before_anything_is_planned(
    script: str, got: str, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    monkeypatch.setattr(launchers, "SLURM_QUESTION", ("sh", "-c", script))
    monkeypatch.setattr(launchers, "SLURM_SECONDS", 0.2 if "sleep" in script else 30.0)
    monkeypatch.setattr(Planner, "plan", None)
    code, out, err = command("-m", *SMALL, "hydra/launcher=slurm", "seed=1,2")
    message = (
        f"hydra/launcher=slurm must reach the controller, got: {got}. Wait until it is up, or choose hydra/launcher"
    )
    assert (code, out, err) == (2, "", f"{message}=local\n")
    assert not Path("multirun").exists()


@pytest.mark.parametrize("question", [("true",), ("sh", "-c", "echo a warning >&2"), ("no-such-program",)])
def test_a_controller_that_answers_or_can_not_be_asked_is_no_reason_to_wait(
    question: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers, "SLURM_QUESTION", question)
    assert launchers.ask_slurm() == ""


class RefusingPlugin:
    """A launcher plugin that takes no jobs, as when the controller of a cluster went down after the first question."""

    module = "nothing"

    def __init__(self, *arguments: object) -> None:
        pass

    def launch(self, overrides: object, *, first: int) -> None:
        raise RuntimeError("sbatch: error: Unable to contact\n  slurm controller.")


def test_a_launcher_that_takes_no_jobs_ends_the_sweep_once_and_resume_carries_on(
    monkeypatch: pytest.MonkeyPatch, command
) -> None:
    monkeypatch.setattr(plugin, "LauncherPlugin", RefusingPlugin)
    words = ["hydra/launcher=submitit_local", "sweep.retries=2", "seed=1,2,3", "hydra.sweep.dir=sweep"]
    code, out, err = command("-m", *SMALL, *words)
    assert (code, err) == (
        1,
        "hydra/launcher=submitit_local must take the jobs of the sweep, got: RuntimeError: sbatch: error: Unable to "
        "contact slurm controller. To resume what is not done: era-cnn resume sweep\n",
    )
    assert "failed" not in out
    assert "Left to the launcher" not in out
    assert Path("sweep/sweep.csv").exists()
    assert command("resume", "sweep", "hydra/launcher=basic")[0] == 0
    assert [outcome.state for outcome in outcomes_of()] == ["completed"] * 3
