"""docs/artefact.md is enough to write a client: one written from its text alone gets the runtime's label maps."""

import base64
import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pytest
from scipy import ndimage

from attunet.export.artefact.artefact_file import KEY
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.self_test import make_self_test
from attunet.volumes.spec import Postprocessing, Preprocessing
from attunet.volumes.volume import Volume

DOCUMENT = (Path(__file__).parents[3] / "docs" / "artefact.md").read_text(encoding="utf-8")


def _filter(n_in: int, n_out: int) -> np.ndarray:
    s = max(1, n_in / n_out)
    c = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(n_in)[None] - c[:, None]) / s)
    return weights / weights.sum(axis=1, keepdims=True)


def _resize(planes: np.ndarray, shape) -> np.ndarray:
    return _filter(planes.shape[-2], shape[0]) @ planes @ _filter(planes.shape[-1], shape[1]).T


class Client:
    """The steps of the document, by its numbers."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map[KEY])
        assert self.about["schema"] <= 2

    def label_map(self, data: np.ndarray, affine: np.ndarray) -> np.ndarray:
        rules = self.about["preprocessing"]
        here = nib.orientations.io_orientation(affine)
        there = nib.orientations.axcodes2ornt(rules["orientation"])
        change = nib.orientations.ornt_transform(here, there)
        oriented = np.stack([nib.orientations.apply_orientation(channel, change) for channel in data])  # 1
        spacing = np.empty(3)
        spacing[change[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
        columns, rows = (axis for axis in range(3) if axis != rules["slice_axis"])
        slices = oriented.transpose(1 + rules["slice_axis"], 0, 1 + rows, 1 + columns).astype(float)  # 2
        air = []
        for c in range(slices.shape[1]):  # 3
            low, high = np.percentile(slices[:, c], rules["clip_percentiles"])
            clipped = np.clip(slices[:, c], low, high)
            slices[:, c] = (clipped - clipped.mean()) / clipped.std()
            air.append((low - clipped.mean()) / clipped.std())
        native = slices.shape[2:]
        small = [
            max(1, round(n * spacing[axis] / rules["spacing_mm"]))
            for n, axis in zip(native, (rows, columns), strict=True)
        ]
        resized = _resize(slices, small)  # 4
        padded = [max(-(-n // 16) * 16, side) for n, side in zip(small, rules["size"], strict=True)]
        top, left = ((p - n) // 2 for p, n in zip(padded, small, strict=True))
        inside = (..., slice(top, top + small[0]), slice(left, left + small[1]))
        window = np.tile(np.array(air)[:, None, None], (len(slices), 1, *padded))
        window[inside] = resized  # 5
        reach = rules["context_slices"] // 2
        order = [np.clip(np.arange(len(window)) + k, 0, len(window) - 1) for k in range(-reach, reach + 1)]
        given = np.concatenate([window[o] for o in order], axis=1).astype(np.float32)  # 6
        logits = self.session.run(["logits"], {self.about["input"]["name"]: given})[0]
        indices = _resize(logits[inside].astype(float), native).argmax(axis=1)  # 1, 2, 3
        position = {rules["slice_axis"]: 0, rows: 1, columns: 2}
        back = nib.orientations.ornt_transform(there, here)
        volume = nib.orientations.apply_orientation(indices.transpose([position[a] for a in range(3)]), back)  # 4
        if self.about["postprocessing"]["largest_component"]:
            for index in range(1, len(self.about["classes"])):  # 5
                part = _largest(volume == index)
                volume[(volume == index) & ~_cut(part, self.about["postprocessing"]["erosion_mm"], affine)] = 0
        return np.array([c["value"] for c in self.about["classes"]])[volume]  # 6


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, number = ndimage.label(mask)
    return parts == max(range(1, number + 1), key=lambda part: (parts == part).sum(), default=1)


def _cut(part: np.ndarray, erosion_mm: float, affine: np.ndarray) -> np.ndarray:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    box = [2 * int(erosion_mm / s) + 1 if n > 1 else 1 for s, n in zip(spacing, part.shape, strict=True)]
    pieces, number = ndimage.label(ndimage.binary_erosion(part, np.ones(box)))
    if number < 2:
        return part
    distances = [ndimage.distance_transform_edt(pieces != piece, sampling=spacing) for piece in range(1, number + 1)]
    most = np.argmax([(pieces == piece).sum() for piece in range(1, number + 1)])
    return _largest(part & (np.argmin(distances, axis=0) == most))


@pytest.mark.parametrize("erosion_mm", [None, 0.0, 3.5])
@pytest.mark.parametrize("changes", [{}, {"slice_axis": 1, "spacing_mm": 2.2, "orientation": "RSP"}])
def test_a_client_written_from_the_document_gets_the_same_label_map(save_artefact, metadata, changes, erosion_mm):
    spec = dataclasses.replace(metadata.spec, **changes)
    finish = Postprocessing() if erosion_mm is None else Postprocessing(True, erosion_mm)
    path = save_artefact(preprocessing=Preprocessing(spec, finish))
    segmenter = Segmenter(path)
    random = np.random.default_rng(3)
    data = random.normal(100, 30, (1, 37, 52, 21)).astype(np.float32)
    affine = nib.affines.from_matvec(np.array([[0, -1.9, 0.2], [1.4, 0, 0], [0, 0.1, 3.0]]), [1, 2, 3])
    values = np.array(segmenter.classes.values)
    expected = values[segmenter.predict_volume(Volume(data, affine))]
    got = Client(path).label_map(data, affine)
    assert len(np.unique(expected)) > 2
    assert (got != expected).mean() < 1e-3, "rounding may decide a pixel where two classes are equal"


def test_arrays_of_the_self_test_are_read_as_documented(save_artefact, artefact):
    client = Client(save_artefact(self_test=make_self_test(Segmenter(artefact))))
    test = client.about["golden"]
    slices, logits = (
        np.frombuffer(base64.b64decode(test[name]["float32_base64"]), "<f4").reshape(test[name]["shape"])
        for name in ("slices", "logits")
    )
    found = client.session.run(["logits"], {"slices": slices})[0][:, :, :: test["stride"], :: test["stride"]]
    assert ((found - logits) ** 2).mean() ** 0.5 <= test["tolerance"] * (logits**2).mean() ** 0.5


def test_every_field_is_documented(artefact):
    about = Client(artefact).about
    for name in (*about, *about["preprocessing"], *about["training"], *about["postprocessing"], *about["input"]):
        assert f"`{name}`" in DOCUMENT or f'"{name}"' in DOCUMENT, name


def test_the_documents_python_runs_as_it_stands(tmp_path, artefact, monkeypatch):
    array = np.random.default_rng(3).normal(100, 30, (37, 52, 6)).astype(np.float32)
    (tmp_path / "model.onnx").write_bytes(artefact.read_bytes())
    nib.save(nib.Nifti1Image(array, np.diag([-1.6, -1.6, 8, 1])), tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    names = {"array": array, "slices": np.zeros((2, 1, 64, 64), np.float32)}
    exec(DOCUMENT.split("```python\n")[1].split("```")[0], names)
    np.testing.assert_array_equal(names["indices"], names["result"].indices)  # the same scan, as an array and as a file
    assert nib.load("labels.nii.gz").shape == array.shape
    assert names["logits"].shape == (2, 5, 64, 64)
