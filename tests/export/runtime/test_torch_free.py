"""A deployment has the base install alone: the runtime works where torch,
onnx and the other extras cannot be imported.
"""

import subprocess
import sys

import nibabel as nib
import numpy as np

SCRIPT = """
import sys

EXTRAS = {"torch", "onnx", "onnxscript", "accelerate", "safetensors", "matplotlib", "wandb", "openvino", "pydicom"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Blocker())

import attunet.export.runtime.segmenter
import attunet.metrics.overlap, attunet.volumes.predict, attunet.volumes.slices
from attunet.export.runtime.self_test import verify
from attunet.export.artefact.card import card
from attunet.io.writers import write_labels

model, scan, out = sys.argv[1:]
segmenter = attunet.export.runtime.segmenter.Segmenter(model, num_threads=1)
prediction = segmenter.predict_file(scan)
write_labels(out, prediction.indices, segmenter.classes, prediction.volume)
print(card(model))
assert not EXTRAS & set(sys.modules), EXTRAS & set(sys.modules)
"""


def test_runtime_predicts_where_torch_cannot_be_imported(artefact, tmp_path):
    scan, out = tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz"
    data = np.random.default_rng(0).normal(100, 30, (40, 48, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([-1.5, -1.5, 5, 1])), scan)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, artefact, scan, out], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    labels = nib.load(out)
    assert labels.shape == data.shape
    np.testing.assert_allclose(labels.affine, nib.load(scan).affine)
