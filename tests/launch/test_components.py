"""The list of software components: complete, with licences, and the one of constraints.txt."""

import json
import re
from pathlib import Path

from attunet.launch.components import INSTALLS, components, differences, write_sbom

ROOT = Path(__file__).parents[2]
FOR_GPUS = ROOT / "lock-cuda.txt"  # what torch's build from PyPI brings


def test_what_is_installed_is_what_is_pinned() -> None:
    assert differences(ROOT / "constraints.txt", FOR_GPUS) == []


def test_a_difference_is_named(tmp_path: Path) -> None:
    text = re.sub(r"^numpy==.*$", "numpy==1.0", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    (tmp_path / "constraints.txt").write_text(text)
    (line,) = differences(tmp_path / "constraints.txt", FOR_GPUS)
    assert line.startswith("numpy ")
    assert "1.0 is in constraints.txt or lock-cuda.txt" in line


def test_every_component_has_a_licence() -> None:
    for extras in INSTALLS.values():
        for component in components(extras):
            # NVIDIA's list of requirements, which has no code, states none
            assert component.license != "not stated" or component.name == "cuda-toolkit", component.name


def test_the_bill_of_materials_has_every_component_and_its_dependencies(tmp_path: Path) -> None:
    base, training = (json.loads(path.read_text()) for path in write_sbom(tmp_path))
    names = {component["name"] for component in base["components"]}
    assert {"numpy", "scipy", "nibabel", "click"} <= names
    assert "torch" not in names
    assert "torch" in {component["name"] for component in training["components"]}
    assert base["bomFormat"] == "CycloneDX"
    (root,) = (one for one in base["dependencies"] if one["ref"] == base["metadata"]["component"].get("bom-ref"))
    assert any(name.startswith("numpy@") for name in root["dependsOn"])
