"""Software components of an installation: `python -m attunet.launch.components --page > docs/components.md`,
or `--sbom FOLDER`.

The page and the CycloneDX files (SBOM) are made from what is installed, and checked against constraints.txt.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attunet.errors import InputError
from attunet.system.atomic_files import write_text

INSTALLS = {"base": (), "training": ("train", "dicom", "images")}
# For the direct requirements: what each is used for, and what a fault in it would do.
PURPOSES = {
    "numpy": (
        "arrays",
        "wrong numbers; the self test of an artefact (`attunet verify`) compares with the answer at export",
    ),
    "scipy": ("distances, connected components, statistics", "wrong metrics or post-processing"),
    "nibabel": ("reading and writing NIfTI", "wrong geometry; label maps are written on the grid that was read"),
    "click": ("the command line", "a command does not start"),
    "onnxruntime-gpu": ("inference", "wrong logits; export and `attunet verify` compare with known answers"),
    "onnxruntime": ("inference", "wrong logits; export and `attunet verify` compare with known answers"),
    "torch": ("training", "a worse network; the artefact is judged on cases that were left out"),
    "accelerate": ("processes and mixed precision in training", "a training stops"),
    "safetensors": ("weights in checkpoints", "a checkpoint is refused by its SHA-256"),
    "onnx": ("writing the artefact", "an artefact is refused at export"),
    "onnxscript": ("used by torch to write ONNX", "an artefact is refused at export"),
    "matplotlib": ("pictures", "a picture is missing"),
    "wandb": ("a tracker, if run.tracker names it", "no tracker"),
    "tqdm": ("the progress bar", "no progress bar"),
    "psutil": ("free memory", "data are streamed where they would fit"),
    "python-gdcm": ("decoding compressed DICOM", "a compressed series is refused"),
    "pydicom": ("reading DICOM", "a series is refused or read with a wrong geometry"),
    "pillow": ("reading PNG, TIFF and JPEG", "a picture is refused or read wrongly"),
}


@dataclass(frozen=True)
class Component:
    """An installed distribution."""

    name: str
    version: str
    license: str
    required_by: tuple[str, ...]  # names of the distributions that bring it; empty for a direct requirement


def components(extras: tuple[str, ...]) -> list[Component]:
    """Everything that `attunet[extras]` brings on this machine, by name.

    Raises:
        InputError: if a requirement is not installed.
    """
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


def page() -> str:
    """docs/components.md: every component with its version, licence, purpose, and what happens if it fails."""
    parts = [
        "# Software components",
        "Made by `python -m attunet.launch.components --page` from an installation of `constraints.txt`. Direct "
        "requirements have a purpose; the others are brought by them. `make sbom` writes the same as CycloneDX files.",
    ]
    for install, extras in INSTALLS.items():
        title = "pip install attunet" + (f"[{','.join(extras)}]" if extras else "")
        head = ["| component | version | licence | used for | if it fails |", "|---|---|---|---|---|"]
        rows = [_row(component) for component in components(extras)]
        parts.append("\n".join([f"## {install}: `{title}`", "", *head, *rows]))
    return "\n\n".join(parts) + "\n"


def _row(component: Component) -> str:
    purpose, failure = PURPOSES.get(component.name, (f"required by {', '.join(component.required_by)}", ""))
    version = component.version.partition("+")[0]  # a local build of torch has the hardware in its version
    return f"| {component.name} | {version} | {component.license} | {purpose} | {failure} |"


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


def differences(constraints: Path) -> list[str]:
    """One line for each component whose version is not the one in the constraints file."""
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    pinned: dict[str, str] = {canonicalize_name(name): version for name, version in pins}
    lines = []
    for component in components(tuple(extra for extras in INSTALLS.values() for extra in extras)):
        version, expected = component.version.partition("+")[0], pinned.get(component.name, "no version")
        if version != expected:
            lines.append(f"{component.name} {version} is installed, {expected} is in {constraints.name}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="print docs/components.md")
    parser.add_argument("--sbom", type=Path, metavar="FOLDER", help="write CycloneDX files")
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="compare with a constraints file; exit code 1 if they differ"
    )
    arguments = parser.parse_args()
    if arguments.page:
        sys.stdout.write(page())
    if arguments.sbom:
        for path in write_sbom(arguments.sbom):
            print(path)
    if arguments.check and (lines := differences(arguments.check)):
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
