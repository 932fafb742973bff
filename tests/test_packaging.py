"""The wheel, installed into an environment of its own, works from any folder: conf/ travels with it."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel; the dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("conf", "era_cnn", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        path = CHECKOUT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)], check=True
    )
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(source)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    (site_packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # Found after the wheel, and without the .pth file that makes the checkout importable.
    (site_packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return folder / "venv"


def start(environment: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(environment / "bin" / words[0]), *words[1:]], capture_output=True, text=True, check=True)


def test_the_wheel_is_what_is_imported(environment: Path) -> None:
    program = "import era_cnn, era_cnn.conf; print(era_cnn.__file__, era_cnn.conf.__file__)"
    for path in start(environment, "python", "-c", program).stdout.split():
        assert Path(path).is_relative_to(environment)


def test_every_yaml_file_is_in_the_wheel(environment: Path) -> None:
    (installed,) = environment.glob("lib/python*/site-packages/era_cnn/conf")
    expected = {path.relative_to(CHECKOUT / "conf") for path in (CHECKOUT / "conf").rglob("*.yaml")}
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == expected
    assert (installed.parent / "py.typed").exists()
    for name in ("README.md", "run_onnx.py"):
        assert (installed.parent / "use" / "exported" / name).exists()


def test_a_run_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    done = start(environment, "era-cnn", "data=digits", "trainer=smoke")
    folder = tmp_path / done.stdout.splitlines()[-2].removeprefix("Run folder: ")
    assert (folder / "report.html").exists()  # from the templates in the wheel
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["params"] == 7_616
    origin = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert origin["code"]["git"] is None  # installed, so no checkout stands behind it


def test_the_module_of_the_wheel(environment: Path) -> None:
    done = start(environment, "python", "-m", "era_cnn", "describe", "experiment=model_3")
    assert "Parameters: 9,180" in done.stdout


def test_a_project_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    start(environment, "era-cnn", "new", "mine")
    assert (tmp_path / "mine" / ".github" / "workflows" / "ci.yml").exists()
    options = ("--config-dir", "mine/conf", "--plugin", "mine/blocks.py")
    assert "none misses its target" in start(environment, "era-cnn", *options, "models", "--check").stdout
