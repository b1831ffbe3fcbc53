"""The lock files: the same versions in each, a hash for every file of Linux,
and what is installed is what is locked.
"""

import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attunet.errors import InputError
from attunet.launch.components import INSTALLS, components
from attunet.launch.lock import Locked, lock_files, read_packages, with_other_builds
from attunet.system.atomic_files import sha256

ROOT = Path(__file__).parents[2]
LOCKS = ("lock.txt", "lock-torch.txt", "lock-cuda.txt")


def pins(name: str) -> dict[str, str]:
    """Requirement -> text of its hashes."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / name).read_text(encoding="utf-8"))[1:]
    rows = (block.replace("\\\n", "").partition(" --hash=") for block in blocks)
    return {requirement.strip(): before + hashes for requirement, before, hashes in rows}


def all_pins() -> dict[str, str]:
    return {pin: hashes for name in LOCKS for pin, hashes in pins(name).items()}


def test_every_package_is_locked_with_its_hashes() -> None:
    locked = all_pins()
    assert len(locked) > 200
    assert [pin for pin, hashes in locked.items() if not re.match(r" --hash=sha256:[0-9a-f]{64}\b", hashes)] == []
    assert set(pins("constraints.txt")) == {*pins("lock.txt"), *pins("lock-torch.txt")}
    assert [Requirement(pin).name for pin in pins("lock-torch.txt")] == ["torch"]


def test_everything_that_is_installed_is_in_the_lock() -> None:
    """The SBOM is made of what is installed: hashes count for nothing where a component came by another door."""
    locked = {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, all_pins())}
    for component in components(tuple(extra for extras in INSTALLS.values() for extra in extras)):
        assert locked[canonicalize_name(component.name)].specifier.contains(component.version.partition("+")[0]), (
            component
        )


def test_the_lock_has_what_every_extra_of_a_developer_wants() -> None:
    locked = {canonicalize_name(Requirement(pin).name) for pin in all_pins()}
    wanted = [Requirement(text) for text in metadata.requires("attunet") or ()]
    extras = ("", "train", "docs", "dev")
    names = {
        canonicalize_name(one.name)
        for one in wanted
        if not one.marker or any(one.marker.evaluate({"extra": e}) for e in extras)
    }
    assert names <= locked


def test_no_registry_is_named() -> None:
    for name in ("constraints.txt", *LOCKS):
        assert "://" not in (ROOT / name).read_text(encoding="utf-8")


def test_only_files_of_linux_count() -> None:
    def wheel(name: str, digest: str) -> str:
        return f'{{ url = "https://example.org/{name}", hashes = {{ sha256 = "{digest * 64}" }} }}'

    wheels = ", ".join(
        [
            wheel("a-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "1"),
            wheel("a-1.0-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", "2"),
            wheel("a-1.0-cp39-abi3-manylinux_2_28_x86_64.whl", "3"),
            wheel("a-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", "9"),
            wheel("a-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", "4"),
            wheel("a-1.0-cp311-cp311-win_amd64.whl", "5"),
            wheel("a-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", "6"),
        ]
    )
    text = f"""
[[packages]]
name = "torch"
version = "2.0"
marker = "python_full_version >= '3.11'"
wheels = [{wheel("torch-2.0-py3-none-any.whl", "7")}]
[[packages]]
name = "a"
version = "1.0"
marker = "python_full_version < '3.12'"
wheels = [{wheels}]
[[packages]]
name = "b"
version = "1.0"
marker = "sys_platform == 'win32'"
wheels = []
[[packages]]
name = "c"
version = "1.0"
sdist = {wheel("c-1.0.tar.gz", "8")}
"""
    files = lock_files(read_packages(text))
    assert files["constraints.txt"].splitlines()[1:] == [
        "a==1.0 ; python_full_version < '3.12'",
        "c==1.0",
        "torch==2.0",
    ]
    hashes = re.findall(r"sha256:(.)", files["lock.txt"])
    assert hashes == ["1", "2", "3", "8"]
    assert re.findall(r"sha256:(.)", files["lock-torch.txt"]) == ["7"]


def test_torch_has_the_hashes_of_other_builds_of_its_version(tmp_path: Path) -> None:
    wheels = [
        tmp_path / f"torch-{version}-cp311-cp311-manylinux_2_28_x86_64.whl" for version in ("2.0+cpu", "2.0", "2.1+cpu")
    ]
    for wheel in wheels:
        wheel.write_text(wheel.name)
    registry, earlier = Locked("torch", "2.0", "", ("a" * 64,)), Locked("torch", "2.0", "", ("b" * 64,))
    both = {sha256(wheel) for wheel in wheels[:2]}
    assert set(with_other_builds(registry, wheels, str(earlier)).hashes) == {"a" * 64, "b" * 64, *both}
    assert with_other_builds(registry, [], str(replace(earlier, version="1.9"))).hashes == registry.hashes


def test_setup_installs_torch_by_hash_alone() -> None:
    """No other door: pip would take a build that it finds on the machine as it is."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = re.findall(r"^\t.*\$\(PIP\) install (.*)", makefile, re.MULTILINE)
    hashed = [line for line in installs if "$(HASHED)" in line or "$(TORCH)" in line]
    assert "TORCH ?= $(HASHED) lock-torch.txt" in makefile
    assert [line for line in installs if line not in hashed] == ["--quiet --no-deps --no-build-isolation --editable ."]


def test_a_python_without_a_file_is_told() -> None:
    text = """
[[packages]]
name = "a"
version = "1.0"
wheels = [{ url = "https://example.org/a-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", hashes = { sha256 = "1" } }]
"""
    with pytest.raises(InputError, match=r"a 1.0: has no file for .*3\.11"):
        read_packages(text)
