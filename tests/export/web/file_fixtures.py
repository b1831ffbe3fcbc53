"""Fixtures of files: NIfTI and DICOM as Python reads them, and files that are refused."""

import gzip
import io
import struct
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from fixture_inputs import affines, flat, image, packed, refused

from attunet.errors import InputError
from attunet.io.readers import read_volume


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
    files["scaled.nii"] = _changed(files["sform.nii.gz"], {112: struct.pack("<2f", 0.37, -12.5)})
    doubles = _nifti(1e9 + data.astype("float64"), affines()["LAS"])
    files["doubles.nii"] = _changed(doubles.to_bytes(), {112: struct.pack("<2f", 1, -1e9)})
    neither = _nifti(data[:, :, :1], np.diag([-2.0, 2, 3, 1]), sform=0, qform=0)
    files["picture.nii"] = _changed(neither.to_bytes(), {40: struct.pack("<4h", 2, 4, 3, 1)})
    files["no quaternion.nii"] = _changed(
        _nifti(data, affines()["LAS"]).to_bytes(), {256: struct.pack("<f", float("nan"))}
    )
    rows = []
    for name, content in files.items():
        file = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        rows.append({"name": name, "base64": packed(file), **_read({name: file}, name)})
    return rows


def _changed(content: bytes, at: dict[int, bytes]) -> bytes:
    """The content with bytes at some places replaced."""
    made = bytearray(content)
    for place, data in at.items():
        made[place : place + len(data)] = data
    return bytes(made)


def _read(files: dict[str, bytes], place: str = "") -> dict[str, Any]:
    """The volume of the files, or of the one at `place`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        volume = read_volume(Path(folder) / place)
    return {"values": flat(volume.data[0]), "affine": volume.affine.tolist(), "shape": volume.shape}


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
        "white is low in twelve bits": {**white, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0},
        "a CT is never inverted": {**white, "Modality": "CT"},
        "a CT with blanks": {**white, "Modality": " CT "},
    }.items():
        files = {f"{z}.dcm": _dicom([pixels[:, :, z]], [12.0 + 4 * z], elements) for z in (1, 0)}
        rows.append({"name": name, **_series(files)})
    frames = _dicom([pixels[:, :, z] for z in (1, 0)], [16.0, 12.0], {})
    rounded = {f"{z}.dcm": _dicom([pixels[:, :, z % 2]], [at], {}) for z, at in enumerate((12.0, 12.8, 13.5, 14.2))}
    more = {"many frames": {"1.dcm": frames}, "rounded positions": rounded}
    return rows + [{"name": name, **_series(files)} for name, files in more.items()]


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
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = b"".join(np.ascontiguousarray(frame.T).tobytes() for frame in frames)
    if len(frames) == 1:
        elements = {**positions[0], **plane, **spacing, **elements}
    else:
        measures, orientation = [with_elements(**spacing)], [with_elements(**plane)]
        groups = with_elements(PlaneOrientationSequence=orientation, PixelMeasuresSequence=measures)
        places = [with_elements(PlanePositionSequence=[with_elements(**one)]) for one in positions]
        dataset.NumberOfFrames, dataset.SharedFunctionalGroupsSequence = len(frames), [groups]
        dataset.PerFrameFunctionalGroupsSequence = places
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _with_echoes(content: bytes) -> bytes:
    """A file of many frames, each of another echo."""
    from pydicom import Dataset, dcmread

    dataset, buffer = dcmread(io.BytesIO(content)), io.BytesIO()
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.MREchoSequence = [Dataset()]
        group.MREchoSequence[0].EffectiveEchoTime = 10.0 * (number + 1)
    dataset.save_as(buffer)
    return buffer.getvalue()


def _series(files: dict[str, bytes]) -> dict[str, Any]:
    return {"files": {name: packed(content) for name, content in files.items()}, **_read(files)}


def wrong_files() -> list[dict[str, Any]]:
    """Files that are refused, with the line that the command line prints."""
    good = _nifti(image((6, 5, 4), "int16"), affines()["LAS"]).to_bytes()
    pressed = gzip.compress(good, mtime=0)

    def changed(at: int, form: str, *values: float) -> bytes:
        data = bytearray(good)
        struct.pack_into(form, data, at, *values)
        return bytes(data)

    real = _nifti(image((6, 5, 4), "float32"), affines()["LAS"]).to_bytes()
    second = _nifti(image((6, 5, 4), "int16"), affines()["LAS"], nib.Nifti2Image, sform=0).to_bytes()
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
        "rounded version2.nii": _changed(second, {352: struct.pack("<3d", 0, 0.7071068, 0.7071068)}),
        "far.nii": changed(292, "<f", 2e9),
        "holes.nii": real[:352] + struct.pack("<f", float("nan")) + real[356:],
    }
    lines = {name: refused(read_volume, name, data) for name, data in files.items()}
    return [{"name": name, "base64": packed(data), "line": lines[name]} for name, data in files.items()]


def wrong_series() -> list[dict[str, Any]]:
    """Series of three slices of which one differs, with the line that the command line prints."""
    pixels = image((3, 4, 3), "int16", seed=6)
    rows = []
    for elements in (
        {"PatientID": "7"},
        {"StudyInstanceUID": "1.2.7"},
        {"Modality": "CT"},
        {"EchoNumbers": 2},
        {"EchoTime": "80"},
        {"PatientName": "another"},
        {"ImageOrientationPatient": [1.6, 1.2, 0, -1.2, 1.6, 0]},
        {"ImageOrientationPatient": [0.8, 0.6, 0, 0.8, 0.6, 0]},
        {"ImagePositionPatient": [3.5, -20, 16]},
        {"RescaleSlope": "0"},
        {"RescaleSlope": "1e-9", "RescaleIntercept": "1000000"},
        {"Rows": 2},
        {"PixelRepresentation": 2},
        {"PixelSpacing": [1.25, -0.75]},
        {"PixelSpacing": [0, 0.75]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]},
        {},  # one file of several echoes
    ):
        heights = [12.0, 16.0, 20.0]
        files = {f"{z}.dcm": _dicom([pixels[:, :, z]], [heights[z]], elements if z == 1 else {}) for z in range(3)}
        if not elements:
            files = {"1.dcm": _with_echoes(_dicom([pixels[:, :, z] for z in range(3)], heights, {}))}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            try:
                read_volume(folder)
            except InputError as error:
                line = str(error).replace(f"{folder}/", "").replace(folder, "series")
                rows.append({"files": {name: packed(content) for name, content in files.items()}, "line": line})
    assert len(rows) == 17
    return rows
