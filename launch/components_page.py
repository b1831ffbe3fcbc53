"""The page of software components, made from the lock files:
`python -m attunet.launch.components_page > docs/components.md`.

The lock files have the names and versions. What requires what, and the licences, are read from the installation.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from attunet.errors import InputError
from attunet.launch.components import INSTALLS, Component, components, pins
from attunet.system.plain_text import markdown_table

LOCKS = ("lock.txt", "lock-torch.txt")
CUDA_LOCK = "lock-cuda.txt"
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
    "tqdm": ("the progress bar", "no progress bar"),
    "psutil": ("free memory", "data are streamed where they would fit"),
    "python-gdcm": ("decoding compressed DICOM", "a compressed series is refused"),
    "pydicom": ("reading DICOM", "a series is refused or read with a wrong geometry"),
    "pillow": ("reading PNG, TIFF and JPEG", "a picture is refused or read wrongly"),
}
# Builds of torch state the licences of other libraries in their wheels.
LICENSES = {"torch": "BSD-3-Clause, and those of the libraries in its wheel"}
ON_GPUS = (
    "torch on GPUs",
    "a training on a GPU stops, or gives a worse network; the artefact is judged on other cases",
)


def page(folder: Path = Path()) -> str:
    """The page docs/components.md: every component with version, licence, purpose, and what happens if it fails. Raises
    InputError where the lock files in `folder` or the installation lack a component.
    """
    versions = {name: version for lock in LOCKS for name, version in pins(folder / lock).items()}
    on_gpus = {**pins(folder / CUDA_LOCK), "triton": versions["triton"]}
    parts = [
        "# Software components",
        "Made by `python -m attunet.launch.components_page` from `lock.txt`, `lock-torch.txt` and `lock-cuda.txt`. "
        "A component that others bring fails as they do. `make sbom` writes an installation's as CycloneDX files.",
    ]
    for install, extras in INSTALLS.items():
        title = "pip install attunet" + (f"[{','.join(extras)}]" if extras else "")
        listed = {one.name: one for one in components(extras) if one.name not in on_gpus}
        if missing := sorted(listed.keys() - versions.keys()):
            raise InputError(f"{missing[0]}: is in none of {', '.join(LOCKS)}; make lock writes them again")
        rows = [_row(one, versions[name], listed) for name, one in listed.items()]
        table = markdown_table(("component", "version", "licence", "used for", "if it fails"), rows)
        parts += [f"## {install}: `{title}`", table]
    parts += [
        "## On GPUs",
        "Brought by torch's build for GPUs. NVIDIA's libraries are under NVIDIA's terms, which lie in their wheels.",
        markdown_table(
            ("component", "version", "used for", "if it fails"), [(*one, *ON_GPUS) for one in sorted(on_gpus.items())]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _row(component: Component, version: str, listed: dict[str, Component]) -> tuple[str, ...]:
    direct = sorted({component.name} if not component.required_by else set(_direct(component.name, listed)))
    if direct == [component.name]:
        purpose, failure = PURPOSES[component.name]
    else:
        purpose = f"required by {', '.join(component.required_by)}"
        failures: dict[str, list[str]] = {}
        for name in direct:
            failures.setdefault(PURPOSES[name][1], []).append(name)
        failure = "; ".join(f"as {', '.join(names)}: {text}" for text, names in failures.items())
    return component.name, version, LICENSES.get(component.name, component.license), purpose, failure


def _direct(name: str, listed: dict[str, Component], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The direct requirements that bring a component."""
    if not listed[name].required_by:
        yield name
    for parent in set(listed[name].required_by) - seen:
        yield from _direct(parent, listed, seen | {name})


if __name__ == "__main__":
    sys.stdout.write(page())
