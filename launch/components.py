"""Software components of an installation as CycloneDX files: `python -m attunet.launch.components --sbom FOLDER`."""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attunet.errors import InputError
from attunet.system.atomic_files import write_text

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)(?: ; ([^\\\n]+))?", re.MULTILINE)
INSTALLS = {"base": (), "training": ("train", "dicom", "images")}


@dataclass(frozen=True)
class Component:
    """An installed distribution."""

    name: str
    version: str
    license: str
    required_by: tuple[str, ...]  # names of the distributions that bring it; empty for a direct requirement


def components(extras: tuple[str, ...]) -> list[Component]:
    """Everything that `attunet[extras]` brings on this machine, by name; InputError if a requirement is missing."""
    required_by: dict[str, set[str]] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [("attunet", extras)]
    visited: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in visited:
            continue
        visited.add((name, wanted))
        for requirement in _requirements(name, wanted):
            child = canonicalize_name(requirement.name)
            required_by.setdefault(child, set()).add(name)
            waiting.append((child, tuple(sorted(requirement.extras))))
    return [_component(name, required_by[name]) for name in sorted(required_by)]


def _requirements(name: str, extras: tuple[str, ...]) -> Iterator[Requirement]:
    try:
        listed = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise InputError(f"{name}: is required but not installed; make setup installs everything") from None
    for text in listed:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _component(name: str, required_by: set[str]) -> Component:
    about = metadata.metadata(name)
    approved = [text for text in about.get_all("Classifier") or [] if text.startswith("License :: OSI Approved")]
    classifier = approved[0].rpartition(" :: ")[2] if approved else ""
    expression, text = ((about.get_all(key) or [""])[0] for key in ("License-Expression", "License"))
    license_name = expression or classifier or text.strip().partition("\n")[0][:60] or "not stated"
    others = () if "attunet" in required_by else tuple(sorted(required_by))
    return Component(name, metadata.version(name), license_name, others)


def write_sbom(folder: Path) -> list[Path]:
    """Writes `sbom-base.json` and `sbom-training.json`, CycloneDX 1.6, into `folder`."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component as CycloneComponent
    from cyclonedx.model.component import ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for install, extras in INSTALLS.items():
        listed = components(extras)
        known = {
            one.name: CycloneComponent(
                name=one.name,
                version=one.version,
                type=ComponentType.LIBRARY,
                purl=PackageURL("pypi", None, one.name, one.version.partition("+")[0]),
                bom_ref=f"{one.name}@{one.version}",
                licenses=[DisjunctiveLicense(name=one.license)],
            )
            for one in listed
        }
        root = CycloneComponent(name="attunet", version=metadata.version("attunet"), type=ComponentType.APPLICATION)
        bom = Bom(components=known.values())
        bom.metadata.component = root
        bom.register_dependency(root, [known[one.name] for one in listed if not one.required_by])
        for name, component in known.items():
            bom.register_dependency(component, [known[one.name] for one in listed if name in one.required_by])
        path = folder / f"sbom-{install}.json"
        write_text(path, JsonV1Dot6(bom).output_as_string(indent=1) + "\n")
        written.append(path)
    return written


def pins(lock: Path) -> dict[str, str]:
    """Name -> version of the packages that a file pins for this Python and machine."""
    rows = PIN.findall(lock.read_text(encoding="utf-8"))
    return {
        canonicalize_name(name): version for name, version, marker in rows if not marker or Marker(marker).evaluate()
    }


def differences(*files: Path) -> list[str]:
    """One line for each component whose version is not the one that a file pins, the last one that has it."""
    pinned = {name: version for file in files for name, version in pins(file).items()}
    names, lines = " or ".join(file.name for file in files), []
    for component in components(tuple(extra for extras in INSTALLS.values() for extra in extras)):
        version, expected = component.version.partition("+")[0], pinned.get(component.name, "no version")
        if version != expected:
            lines.append(f"{component.name} {version} is installed, {expected} is in {names}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom", type=Path, metavar="FOLDER", help="write CycloneDX files")
    parser.add_argument(
        "--check",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="compare with pins; exit 1 if they differ",
    )
    arguments = parser.parse_args()
    if arguments.sbom:
        for path in write_sbom(arguments.sbom):
            print(path)
    if arguments.check and (lines := differences(*arguments.check)):
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
