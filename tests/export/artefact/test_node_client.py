"""A client in another language, written from docs/artefact.md, gets the label values that the runtime gets."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.export.artefact.artefact import Artefact
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.spec import Postprocessing, Preprocessing
from attunet.volumes.volume import Volume

CLIENT = Path(__file__).parent / "node_client"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client beside its packages, installed once; skipped without Node or without a registry."""
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(CLIENT, folder)
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"onnxruntime-node cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "client.mjs"


CASES = {
    "as exported": ({}, Postprocessing()),
    "other axes, largest part": ({"slice_axis": 1, "spacing_mm": 2.2, "orientation": "RSP"}, Postprocessing(True)),
    "cut at necks": ({}, Postprocessing(True, 2.0)),
    "CT window": ({"normalization": "ct", "window": (40.0, 160.0)}, Postprocessing()),
    "sheared": ({}, Postprocessing()),
}
OBLIQUE = np.array([[0, -1.9, 0.2], [1.4, 0, 0], [0, 0.1, 3.0]])
# The nearest rotation has other axes than the columns themselves
SHEARED = np.array([[1.273, -1.057, -0.336], [-0.144, 0.943, 1.987], [-0.564, -1.266, 2.222]])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_node_gets_the_same_label_values(
    tmp_path: Path, save_artefact, metadata: Artefact, client: Path, case: str
) -> None:
    changes, finish = CASES[case]
    path = save_artefact(preprocessing=Preprocessing(dataclasses.replace(metadata.spec, **changes), finish))
    data = np.random.default_rng(3).normal(100, 30, (1, 37, 32, 9)).astype(np.float32)
    affine = nib.affines.from_matvec(SHEARED if case == "sheared" else OBLIQUE, [1, 2, 3])
    scan = {"shape": data.shape, "data": data.ravel().tolist(), "affine": affine.tolist()}
    (tmp_path / "scan.json").write_text(json.dumps(scan))
    command = ["node", client, path, tmp_path / "scan.json", tmp_path / "labels.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    labels = np.array(json.loads((tmp_path / "labels.json").read_text())).reshape(data.shape[1:])
    segmenter = Segmenter(path, num_threads=1)
    expected = np.array(segmenter.classes.values)[segmenter.predict_volume(Volume(data, affine))]
    assert len(np.unique(expected)) > 2
    assert (labels != expected).sum() <= 2  # two versions of ONNX Runtime may exchange a tie; here none differs
