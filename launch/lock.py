"""The lock files, made anew by `make lock`: `python -m attunet.launch.lock UV`, where UV is the program uv.

constraints.txt has the exact versions, for `pip install --constraint` with any extras. lock.txt has them again with the
SHA-256 of every file that Linux with Python 3.11 or 3.12 may take, for `pip install --require-hashes --no-deps`.
lock-torch.txt has torch, with the hashes of builds for CPUs too, whose version ends in `+cpu`: of wheels in a folder
that is named here, and of those that it has already. lock-cuda.txt has the libraries that the build for GPUs brings.
"""

import argparse
import itertools
import re
import subprocess
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

from attunet.errors import InputError
from attunet.system.atomic_files import sha256, write_text
from attunet.system.private_folder import PrivateFolder

EXTRAS = ("train", "docs", "dev")
PLACES = list(itertools.product(("3.11.0", "3.11.99", "3.12.0", "3.12.99"), ("x86_64", "aarch64")))
OF_CUDA = re.compile(r"nvidia-|cuda-")
TORCH_LOCK = "lock-torch.txt"
HEADS = {
    "constraints.txt": (
        "Exact versions of everything that 'make setup' installs; what torch itself pins is left to torch."
    ),
    "lock.txt": "The versions of constraints.txt with hashes, but for torch: pip install --require-hashes --no-deps.",
    TORCH_LOCK: "torch with the hashes of its builds for GPUs and CPUs: pip install --require-hashes --no-deps.",
    "lock-cuda.txt": "Packages of torch's build for GPUs, with hashes: pip install --require-hashes --no-deps.",
}


@dataclass(frozen=True)
class Locked:
    """A version of a package."""

    name: str
    version: str
    marker: str  # where it applies; empty for everywhere
    hashes: tuple[str, ...]  # of the files that Linux may take

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")

    def __str__(self) -> str:
        return " \\\n".join([self.pin, *(f"    --hash=sha256:{digest}" for digest in self.hashes)])


def read_packages(pylock: str) -> list[Locked]:
    """The packages of a pylock.toml that Linux installs, with the files that its Pythons may take."""
    packages = tomllib.loads(pylock)["packages"]
    locked = [_locked(package) for package in packages if any(_applying(package.get("marker", "")))]
    return sorted(locked, key=lambda one: (one.name, one.version))


def _locked(package: dict[str, Any]) -> Locked:
    """Raises InputError where a Python has neither a wheel nor the source."""
    marker = package.get("marker", "")
    wheels: list[set[str]] = []
    for python, applies in zip(PLACES, _applying(marker), strict=True):
        files = [file for file in package.get("wheels", []) if _fits(file["url"].rpartition("/")[2], python)]
        fitting = {file["hashes"]["sha256"] for file in files}
        if applies and not fitting and "sdist" not in package:
            raise InputError(
                f"{package['name']} {package['version']}: has no file for {python}; bound its version in setup.py"
            )
        wheels += [fitting or {package["sdist"]["hashes"]["sha256"]}] if applies else []
    hashes = tuple(sorted(set().union(*wheels)))
    return Locked(package["name"], package["version"], "" if all(_applying(marker)) else marker, hashes)


def _fits(wheel: str, place: tuple[str, str]) -> bool:
    """True if a Python of Linux on a machine can take a wheel."""
    (python, machine), (*_, tags) = place, parse_wheel_filename(wheel)
    return any(_fits_tag(tag, int(python.split(".")[1]), machine) for tag in tags)


def _fits_tag(tag: Tag, minor: int, machine: str) -> bool:
    number = re.fullmatch(r"(?:py|cp)3(\d*)", tag.interpreter)
    of_machine = tag.platform == "any" or ("manylinux" in tag.platform and tag.platform.endswith(machine))
    if number is None or not of_machine:
        return False
    return tag.abi == f"cp3{minor}" if tag.abi.startswith("cp3") else int(number[1] or 0) <= minor


def _applying(marker: str) -> list[bool]:
    """True where a package is installed, for each Python and machine."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    applying = []
    for python, machine in PLACES:
        version = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
        place = {**linux, **version, "platform_machine": machine}
        applying.append(not marker or Marker(marker).evaluate(place))
    return applying


def with_other_builds(torch: Locked, wheels: Iterable[Path], known: str) -> Locked:
    """torch with the hashes of builds that the registry does not have.

    Args:
        wheels: files; those of torch in this version count, with or without the name of a build (`2.13.0+cpu`).
        known: text of an earlier lock, whose hashes stay as long as the version does.
    """
    hashes = set(re.findall("sha256:([0-9a-f]{64})", known)) if f"{torch.pin} \\\n" in known else set()
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        if (name, version.public) == (torch.name, torch.version):
            hashes.add(sha256(wheel))
    return replace(torch, hashes=tuple(sorted({*torch.hashes, *hashes})))


def lock_files(packages: Iterable[Locked]) -> dict[str, str]:
    """Names and texts of the four files."""
    packages = list(packages)
    torch = [one for one in packages if one.name == "torch"]
    cuda = [one for one in packages if OF_CUDA.match(one.name)]
    others = [one for one in packages if one not in (*torch, *cuda)]
    pins = [one.pin for one in packages if one not in cuda]
    bodies = (pins, map(str, others), map(str, torch), map(str, cuda))
    return {
        name: "\n".join([f"# {head} Made by 'make lock'.", *body]) + "\n"
        for (name, head), body in zip(HEADS.items(), bodies, strict=True)
    }


def resolve(uv: Path, upgrade: bool) -> str:
    """The pylock.toml that the program `uv` resolves from setup.py. Without `upgrade` it keeps the versions of
    constraints.txt, and one that no longer fits is to be deleted there.
    """
    with PrivateFolder() as folder:
        out = folder.path / "pylock.toml"
        extras = [word for extra in EXTRAS for word in ("--extra", extra)]
        known = [] if upgrade else ["--constraints", "constraints.txt"]
        how = ["--quiet", "--universal", "--python-version", "3.11", "--format", "pylock.toml"]
        command = [str(uv), "pip", "compile", *how, *extras, *known, "--output-file", str(out), "setup.py"]
        subprocess.run(command, check=True)
        return out.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uv", type=Path)
    parser.add_argument("--upgrade", action="store_true", help="the newest versions, not those of constraints.txt")
    parser.add_argument("--wheels", type=Path, action="append", default=[], help="a folder with builds of torch")
    arguments = parser.parse_args()
    wheels = [wheel for folder in arguments.wheels for wheel in folder.glob("torch-*.whl")]
    known = Path(TORCH_LOCK).read_text(encoding="utf-8")
    packages = [
        with_other_builds(one, wheels, known) if one.name == "torch" else one
        for one in read_packages(resolve(arguments.uv, arguments.upgrade))
    ]
    for name, text in lock_files(packages).items():
        write_text(Path(name), text)


if __name__ == "__main__":
    main()
