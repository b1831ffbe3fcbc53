"""What the Python side makes of small inputs, as JSON for the page's own tests:
run this file after a change of the steps.

    python tests/export/web/write_fixtures.py

`test_fixtures.py` fails where the committed JSON is not what the Python side gives.
"""

import base64
import gzip
import io
import json
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attunet.classes import CHAOS_MR
from attunet.errors import InputError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import load_artefact, write_artefact
from attunet.io.readers import read_volume
from attunet.volumes.geometry import orientation_transform, resize_linear
from attunet.volumes.intensity import channel_statistics
from attunet.volumes.postprocess import postprocess
from attunet.volumes.slices import VolumeSlices, assemble, restore
from attunet.volumes.spec import Postprocessing, Preprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges, check_input
from attunet.volumes.volume import Volume

OUT = Path(__file__).parents[3] / "export/web/test/fixtures.json"
MODEL = b"\x08\x0a\x3a\x00"  # ir_version 10 and an empty graph: a whole ONNX model, if a poor one
SPEC = PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=1.6, size=(16, 32))


def affines() -> dict[str, np.ndarray]:
    """Straight, permuted, oblique, and sheared as with a tilted gantry."""
    turn = np.deg2rad(38)
    oblique = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0.1], [0, -0.1, 1]]) * [
        1.5,
        1.5,
        6,
    ]
    tilted = np.diag([-0.8, 0.8, 5.0])
    tilted[1, 2] = 2.9
    parts = {
        "LAS": np.diag([-2.0, 2.0, 8.0]),
        "SPR": np.array([[0, 0, 3.0], [0, -1.5, 0], [1.2, 0, 0]]),
        "oblique": oblique,
        "tilted": tilted,
    }
    return {name: nib.affines.from_matvec(part, (10, -20, 30)) for name, part in parts.items()}


def image(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Smooth enough that resampling matters, with a few extreme voxels that clipping cuts."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 90.0, shape)
    values.flat[:3] = (0, 2000, 3000)
    return (values % 251 if dtype == "uint8" else values).astype(dtype)


def flat(array: np.ndarray) -> list[Any]:
    """First axis fastest, as the page keeps volumes."""
    return np.asarray(array).ravel(order="F").tolist()


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def resizes() -> list[dict[str, Any]]:
    rows = []
    for shape, to in (((5, 7), (8, 3)), ((9, 4), (3, 11)), ((6, 6), (6, 6)), ((1, 5), (2, 2))):
        plane = image(shape, "float32", seed=shape[0]) / 7
        rows.append(
            {
                "plane": plane.ravel().tolist(),
                "from": shape,
                "to": to,
                "result": resize_linear(plane, to).ravel().tolist(),
            }
        )
    return rows


def orientations() -> list[dict[str, Any]]:
    return [
        {
            "name": f"{name} to {code}",
            "affine": affine.tolist(),
            "orientation": code,
            "transform": orientation_transform(affine, code),
        }
        for name, affine in affines().items()
        for code in ("LPS", "RAS", "SLA", None)
    ]


def scalings() -> list[dict[str, Any]]:
    rows = []
    for dtype in ("int16", "uint8", "uint16", "int32", "float32"):
        channel = image((4, 5, 6), dtype, seed=1)
        for how in ("zscore", "ct", "none"):
            found = channel_statistics(channel, replace(SPEC, normalization=how, clip_percentiles=(2.0, 97.0)))
            rows.append(
                {
                    "dtype": dtype,
                    "how": how,
                    "values": flat(channel),
                    "scaling": [found.low, found.high, found.shift, found.scale],
                }
            )
    return rows


def preparations() -> list[dict[str, Any]]:
    """Volumes to slices, and random logits of those slices back to labels."""
    rows = []
    specs = {
        "one slice": SPEC,
        "with neighbours": replace(SPEC, context_slices=3, slice_axis=1, orientation="RAS"),
        "two channels": replace(SPEC, num_channels=2, context_slices=3, normalization="ct"),
        "native pixels": replace(SPEC, spacing_mm=None, normalization="none", slice_axis=0),
    }
    for (name, spec), (code, affine) in zip(specs.items(), affines().items(), strict=True):
        data = np.stack([image((9, 7, 3), "int16", seed=channel) for channel in range(spec.num_channels)])
        prepared = VolumeSlices(Volume(data, affine), spec)
        context = prepared.batch(0, len(prepared))
        logits = np.random.default_rng(2).normal(0, 1, (len(context), 3, *context.shape[2:])).astype(np.float32)
        logits = np.clip(np.round(logits * 32), -127, 127) / 32  # a byte each
        rows.append(
            {
                "name": f"{name}, {code}",
                "spec": spec.to_json(),
                "affine": affine.tolist(),
                "shape": data.shape[1:],
                "channels": [flat(channel) for channel in data],
                "window": context.shape[2:],
                "input_base64": packed(gzip.compress(context.astype("<f4").tobytes(), mtime=0)),
                "logits_base64": packed((logits * 32).astype("i1").tobytes()),
                "labels": flat(assemble(restore(logits, prepared.grid), prepared.grid)),
            }
        )
    return rows


def finishings() -> list[dict[str, Any]]:
    """Blobs joined by necks, some voxels of them equally far from two pieces."""
    labels = np.zeros((26, 14, 5), np.uint8)
    labels[1:11, 2:12, :4], labels[11:18, 3:5, 1:4], labels[18:25, 3:11, 1:] = 1, 1, 1
    labels[0:4, 12:14], labels[20:24, 12:14] = 2, 2  # two parts of one size
    labels[13:15, 8:10, :2] = 3
    return [
        {
            "shape": labels.shape,
            "spacing": spacing,
            "erosion_mm": erosion,
            "labels": flat(labels),
            "result": flat(postprocess(labels, 4, spacing, Postprocessing(True, erosion))),
        }
        for spacing, erosion in (
            ((1.0, 1.0, 1.0), 0.0),
            ((1.0, 1.0, 1.0), 1.0),
            ((0.7, 0.7, 5.0), 1.4),
            ((1.0, 1.2, 1.0), 2.4),
        )
    ]


def warnings() -> list[dict[str, Any]]:
    def pair(low: float, high: float) -> tuple[float, float]:
        return low, high

    ranges = TrainingRanges("mm", (pair(1, 2),) * 3, (pair(100, 300),) * 3, (pair(20, 60),), (pair(50, 90),))
    rows = []
    for affine, scale, shift in (
        (np.diag([1.5, 1.5, 4, 1]), 1, 0),
        (np.diag([20.0, 20, 60, 1]), 0.01, 0),
        (np.diag([20.0, 20, 60, 1]), 0.2, 12345),
    ):
        data = (image((9, 8, 3), "float32") * np.float32(scale) + np.float32(shift))[None]
        found = check_input(Volume(data, affine), ranges, "LPS")
        lines = [f"{finding.text} [{finding.rule}]" for finding in found]
        rows.append({"affine": affine.tolist(), "shape": data.shape[1:], "values": flat(data[0]), "lines": lines})
    return [{"ranges": ranges.to_json(), **row} for row in rows]


def artefacts() -> dict[str, Any]:
    """A whole one, and damaged ones with the words of the command line."""
    about = Artefact(
        name="small", precision="fp32", preprocessing=Preprocessing(SPEC), classes=CHAOS_MR, num_parameters=7, fold=0
    )
    whole = write_artefact(MODEL, about)
    wrong = {
        "cut": whole[:-9],
        "changed": whole.replace(b'"name":"small"', b'"name":"smell"'),
        "foreign": MODEL,
        "twice": whole + whole[len(MODEL) :],
        "text": b"hello, this is no model",
    }
    rows = [
        {"base64": packed(data), "line": _refused(lambda path: load_artefact(path), "model.onnx", data)}
        for data in wrong.values()
    ]
    return {"whole": packed(whole), "name": about.name, "spec": about.spec.to_json(), "wrong": rows}


def _refused(read: Callable[[Path], object], name: str, data: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            read(path)
        except InputError as error:
            return str(error).replace(f"{folder}/", "")
    raise AssertionError(f"{name} was read")


def _nifti(
    data: np.ndarray,
    affine: np.ndarray,
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
    *,
    sform: int = 1,
    qform: int = 1,
) -> Any:
    made = kind(data, affine, dtype=data.dtype)
    made.header.set_xyzt_units("mm")
    made.set_sform(affine, code=sform)
    made.set_qform(affine, code=qform)
    return made


def niftis() -> list[dict[str, Any]]:
    shear_free = affines()["oblique"]
    shear_free[:3, :3] = np.linalg.qr(shear_free[:3, :3])[0] * [1.5, 1.5, 6]
    data = image((4, 3, 2), "int16")
    files = {
        "sform.nii.gz": _nifti(data, affines()["tilted"], qform=0).to_bytes(),
        "qform.nii": _nifti(data.astype("float32"), shear_free, sform=0).to_bytes(),
        "neither.nii": _nifti(data.astype("uint8"), np.diag([-2.0, 2, 3, 1]), sform=0, qform=0).to_bytes(),
        "version2.nii": _nifti(data.astype("float64"), affines()["SPR"], nib.Nifti2Image).to_bytes(),
        "big.nii": nib.Nifti1Image(data.astype(">i2"), affines()["LAS"], nib.Nifti1Header(endianness=">")).to_bytes(),
        "wide.nii": _nifti(data.astype("int64"), affines()["LAS"]).to_bytes(),
    }
    scaled = bytearray(files["sform.nii.gz"])
    scaled[112:120] = struct.pack("<2f", 0.37, -12.5)
    files["scaled.nii"] = bytes(scaled)
    rows = []
    for name, content in files.items():
        packed_content = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        volume = _read(name, packed_content)
        rows.append(
            {
                "name": name,
                "base64": packed(packed_content),
                "values": flat(volume.data[0]),
                "affine": volume.affine.tolist(),
                "shape": volume.shape,
            }
        )
    return rows


def _read(name: str, content: bytes) -> Volume:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return read_volume(path)


def dicoms() -> list[dict[str, Any]]:
    """Series of two slices, and one file of two frames, as Python reads them."""
    pixels = image((3, 4, 2), "int16", seed=5)
    white = {"PhotometricInterpretation": "MONOCHROME1"}
    rows = []
    for name, elements in {
        "plain": {},
        "rescaled": {"RescaleSlope": "0.37", "RescaleIntercept": "-12.5"},
        "twelve bits": {"BitsStored": 12, "HighBit": 11},
        "shifted bits": {"BitsStored": 12, "HighBit": 13, "PixelRepresentation": 0},
        "white is low": white,
        "a CT is never inverted": {**white, "Modality": "CT"},
    }.items():
        files = {f"{z}.dcm": _dicom([pixels[:, :, z]], [12.0 + 4 * z], elements) for z in (1, 0)}
        rows.append({"name": name, **_series(files)})
    return [
        *rows,
        {"name": "many frames", **_series({"1.dcm": _dicom([pixels[:, :, z] for z in (1, 0)], [16.0, 12.0], {})})},
    ]


def _dicom(frames: list[np.ndarray], heights: list[float], elements: dict[str, Any]) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset

    def with_elements(**values: Any) -> Dataset:
        made = Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    columns, rows = frames[0].shape
    positions = [{"ImagePositionPatient": [1.5, -20, height]} for height in heights]
    plane, spacing = {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]}, {"PixelSpacing": [1.25, 0.75]}
    dataset = with_elements(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4", SOPInstanceUID="1.2.3", SeriesInstanceUID="1.2.9", Modality="MR"
    )
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
        rows,
        columns,
        1,
        "MONOCHROME2",
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = b"".join(np.ascontiguousarray(frame.T).tobytes() for frame in frames)
    if len(frames) == 1:
        elements = {**positions[0], **plane, **spacing, **elements}
    else:
        groups = {
            "PlaneOrientationSequence": [with_elements(**plane)],
            "PixelMeasuresSequence": [with_elements(**spacing)],
        }
        dataset.NumberOfFrames, dataset.SharedFunctionalGroupsSequence = len(frames), [with_elements(**groups)]
        dataset.PerFrameFunctionalGroupsSequence = [
            with_elements(PlanePositionSequence=[with_elements(**one)]) for one in positions
        ]
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _series(files: dict[str, bytes]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        volume = read_volume(folder)
    values = {"values": flat(volume.data[0]), "affine": volume.affine.tolist(), "shape": volume.shape}
    return {"files": {name: packed(content) for name, content in files.items()}, **values}


def wrong_files() -> list[dict[str, Any]]:
    """Files that are refused, with the line that the command line prints."""
    good = _nifti(image((6, 5, 4), "int16"), affines()["LAS"]).to_bytes()
    pressed = gzip.compress(good, mtime=0)

    def changed(at: int, form: str, *values: float) -> bytes:
        data = bytearray(good)
        struct.pack_into(form, data, at, *values)
        return bytes(data)

    real = _nifti(image((6, 5, 4), "float32"), affines()["LAS"]).to_bytes()
    files = {
        "short.nii": good[:400],
        "header.nii": good[:200],
        "short.nii.gz": pressed[: len(pressed) // 2],
        "plain.nii.gz": good,
        "colour.nii": changed(70, "<h", 128),
        "complex.nii": changed(70, "<h", 32),
        "bits.nii": changed(70, "<h", 1),
        "unknown.nii": changed(70, "<h", 999),
        "flat.nii": changed(280, "<12f", *[0.0] * 12),
        "endless.nii": changed(280, "<f", float("nan")),
        "film.nii": changed(40, "<5h", 4, 6, 5, 2, 2),
        "offset.nii": changed(108, "<f", 1e9),
        "pressed.nii": pressed,
        "empty.nii.gz": b"",
        "zeros.nii": bytes(1000),
        "page.nii.gz": b"\r\n<!DOCTYPE html><html>" * 20,
        "pointer.nii.gz": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "annex.nii.gz": b"../../.git/annex/objects/x/y\n",
        "picture.nii": b"\x89PNG\r\n\x1a\n" + bytes(400),
        "array.nii.gz": b"\x93NUMPY" + bytes(400),
        "dicom.nii.gz": bytes(128) + b"DICM" + bytes(400),
        "holes.nii": real[:352] + struct.pack("<f", float("nan")) + real[356:],
    }
    return [
        {"name": name, "base64": packed(data), "line": _refused(read_volume, name, data)}
        for name, data in files.items()
    ]


def fixtures() -> dict[str, Any]:
    made = {
        "resizes": resizes(),
        "orientations": orientations(),
        "scalings": scalings(),
        "preparations": preparations(),
        "finishings": finishings(),
        "warnings": warnings(),
        "artefacts": artefacts(),
        "niftis": niftis(),
        "dicoms": dicoms(),
        "wrong_files": wrong_files(),
    }
    return json.loads(json.dumps(made))


if __name__ == "__main__":
    OUT.write_text(json.dumps(fixtures(), separators=(",", ":")) + "\n", encoding="utf-8")
    sys.stdout.write(f"{OUT.name}: {OUT.stat().st_size:,} bytes\n")
