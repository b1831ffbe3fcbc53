"""The runtime works in the base install alone, without torch, onnx and the other extras."""

import nibabel as nib
import numpy as np

EXTRAS = {"torch", "onnx", "onnxscript", "accelerate", "safetensors", "matplotlib", "wandb", "openvino", "pydicom"}
SCRIPT = """
import attunet.metrics.overlap, attunet.volumes.predict, attunet.volumes.slices
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.self_test import verify
from attunet.export.artefact.card import card
from attunet.io.writers import write_labels

model, scan, out = sys.argv[1:]
segmenter = Segmenter(model, num_threads=1)
prediction = segmenter.predict_file(scan)
write_labels(out, prediction.indices, segmenter.classes, prediction.volume)
print(card(model))
"""


def test_runtime_predicts_where_torch_cannot_be_imported(run_without, artefact, write_scan, tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    run_without(EXTRAS, SCRIPT, artefact, scan, tmp_path / "labels.nii.gz")
    labels = nib.load(tmp_path / "labels.nii.gz")
    assert labels.shape == nib.load(scan).shape
    np.testing.assert_allclose(labels.affine, nib.load(scan).affine)
