"""The wheel, in an environment of its own outside the clone: what a user of the package gets."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "toolkit": "attunet",
    "launch": "attunet/launch",
    "export": "attunet/export",
    "benchmarks": "attunet/benchmarks",
}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that the clone stays as it is."""
    place = tmp_path_factory.mktemp("wheel")
    for room in ROOMS:
        shutil.copytree(
            ROOT / room, place / "copy" / room, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "copy")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps")
    run(*pip, "--no-build-isolation", "--wheel-dir", place, place / "copy", cwd=place)
    return next(place.glob("attunet-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; what it depends on is borrowed from the one that the tests run in."""
    place = tmp_path_factory.mktemp("environment") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--ignore-installed"]
    run(sys.executable, "-m", "pip", "--python", python, *install, wheel, cwd=place)
    return place


def test_the_wheel_holds_every_module_and_nothing_generic(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"attunet"}
    for room, package in ROOMS.items():
        for path in (ROOT / room).rglob("*.py"):
            assert f"{package}/{path.relative_to(ROOT / room).as_posix()}" in names
    # The browser's page is there where npm built it.
    for room, pattern in (
        ("toolkit", "presets/*.toml"),
        ("launch", "configs/*.yaml"),
        ("launch", "slurm/*"),
        ("export", "web/page/*"),
        ("benchmarks", "report/templates/*"),
    ):
        for path in (ROOT / room).glob(pattern):
            assert f"{ROOMS[room]}/{path.relative_to(ROOT / room).as_posix()}" in names
    assert any(name.endswith("LICENSE") for name in names)


def test_the_command_and_its_files_work_outside_the_clone(environment: Path, tmp_path: Path) -> None:
    attunet, python = environment / "bin" / "attunet", environment / "bin" / "python"
    where = run(python, "-c", "import attunet; print(attunet.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    assert "prepare" in run(attunet, "--help", cwd=tmp_path)
    run(attunet, "phantom", "source", "--cases", 2, cwd=tmp_path)
    told = run(attunet, "prepare", "source", "store", "--config", "chaos-cpu", cwd=tmp_path)
    assert "192 × 192" in told
    code = "import attunet.launch as l, pathlib; print(*(pathlib.Path(l.__file__).parent / 'configs').iterdir())"
    assert "multi_gpu.yaml" in run(python, "-c", code, cwd=tmp_path)
    assert "--fold" in run(python, "-m", "attunet.launch.train", "--help", cwd=tmp_path)
