"""What a user installs is what we wrote: all four packages, nothing else, and a command that answers."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_SHIPPED = (".py", ".html", ".css", ".js", ".json", ".safetensors")
PACKAGES = ("data", "stage1_autoencoder", "stage2_codegen", "pipelines")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    uv = shutil.which("uv") or os.environ.get("UV")
    if uv is None:
        pytest.skip("uv is not on the path")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([uv, "build", "--wheel", "--out-dir", str(out), str(ROOT)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_every_module_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    expected = {path.relative_to(ROOT).as_posix() for path in files if path.suffix in _SHIPPED}
    assert expected <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)


def test_installed_command_answers_without_torch(wheel: Path, tmp_path: Path) -> None:
    """Installed into a clean environment whose torch cannot be imported: help must still come."""
    environment = tmp_path / "env"
    uv = shutil.which("uv") or os.environ["UV"]
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [uv, "pip", "install", "-q", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True)
    light = tmp_path / "light"
    light.mkdir()
    (light / "torch.py").write_text("raise ImportError('help must not need torch')")
    path = os.pathsep.join([str(light), sysconfig.get_path("purelib")])  # our dependencies, after the broken torch
    done = subprocess.run(
        [environment / "bin" / "codegan", "--help"],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "train-ae" in done.stdout
