"""Forms of files that are read here: a whole one of each, which fuzzers damage, and what reads it."""

import contextlib
import functools
import gzip
import io
import json
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from folder_forms import checkpoint, pair, read_pair, read_parts  # type: ignore[import-not-found]
from PIL import Image

from attunet.classes import Classes
from attunet.config import load_config
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import KEY, load_artefact, write_artefact
from attunet.export.artefact.onnx_file import with_metadata
from attunet.export.artefact.signature import sign_artefact, verify_signature
from attunet.io.archives import extract
from attunet.io.dicom.organ_codes import read_codes
from attunet.io.pictures.annotations import read_annotations
from attunet.io.readers import read_mask, read_volume
from attunet.privacy.audit_log import AuditLog, verify_audit
from attunet.privacy.pseudonyms import Pseudonyms
from attunet.sources.find_cases import find_cases
from attunet.sources.labels.labelled import read_labelled
from attunet.sources.splits import read_splits
from attunet.store import open_store
from attunet.volumes.spec import Preprocessing, PreprocessSpec

PIXELS = np.random.default_rng(0).integers(0, 900, (9, 7, 4)).astype(np.int16)


@dataclass(frozen=True)
class Form:
    """A form of file.

    Args:
        name: of the file.
        base: makes a whole one.
        header: how many of its first bytes are read first, and are the most telling to damage.
        read: reads the file; only InputError may come out.
        share: of the examples of a run over all forms.
        packed: damaged first and compressed by gzip then.
    """

    name: str
    base: Callable[[], bytes]
    header: int
    read: Callable[[Path], object]
    share: float
    packed: bool = False


def nifti(kind: type) -> bytes:
    return bytes(kind(PIXELS, np.diag([-1.5, 1.5, 7, 1])).to_bytes())


def scaled_nifti() -> bytes:
    raw = nifti(nib.Nifti1Image)
    return raw[:112] + struct.pack("<ff", 0.5, -3) + raw[120:]  # scl_slope, scl_inter


def picture(form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint8)).save(out, form, **options)
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a-src.nii", nifti(nib.Nifti1Image))
        opened.writestr("b/c.json", "{}")
    return out.getvalue()


def read_any(path: Path) -> None:
    for read in (read_volume, read_mask, lambda p: read_volume(p, channels=None)):
        read(path)


def unzip(path: Path) -> None:
    extract(path, path.with_suffix(".out"), lambda name: True)


def read_store(path: Path) -> None:
    (path.parent / "splits.json").write_text('{"schema": 1, "folds": [["01"]]}')
    open_store(path.parent)


def dataset_json(path: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (path.parent / name).mkdir()
        (path.parent / name / "a.nii").touch()
    find_cases(path.parent)


def series(syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    """One DICOM slice, written once; explicit little endian unless another transfer syntax is given."""
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.3",
        "1.2.4",
    )
    dataset.PatientName = "Doe^Jane"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 7, 9, 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelSpacing, dataset.SliceThickness = ["1.5", "1.5"], "7"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = ["0", "0", "0"], ["1", "0", "0", "0", "1", "0"]
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-5"
    dataset.PixelData = PIXELS[:, :, 0].T.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def compressed(syntax: str) -> bytes:
    """The slice of `series`, enlarged, in a compressed transfer syntax."""
    from pydicom import dcmread

    dataset = dcmread(io.BytesIO(series()))
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 56, 72, 0
    dataset.PixelData = np.repeat(np.repeat(PIXELS[:, :, 0].T, 8, axis=0), 8, axis=1).astype(np.uint16).tobytes()
    dataset.compress(syntax, generate_instance_uid=False)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def written(name: str) -> bytes:
    """A scan as SimpleITK or nibabel writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        if name.endswith(".mgz"):
            nib.save(nib.freesurfer.MGHImage(PIXELS.astype(np.int32), np.eye(4)), path)
        else:
            import SimpleITK

            SimpleITK.WriteImage(
                SimpleITK.GetImageFromArray(PIXELS.astype(np.int16)), str(path), useCompression="packed" in name
            )
        return path.read_bytes()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in ("a/b.nii", "c.png"):
            entry = tarfile.TarInfo(name)
            entry.size = 500
            archive.addfile(entry, io.BytesIO(bytes(500)))
    return out.getvalue()


ANNOTATIONS = json.dumps(
    {
        "images": [{"id": 0, "file_name": "a.png", "height": 7, "width": 9}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 4]]},
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": {"size": [7, 9], "counts": [5, 10, 48]}},
        ],
    }
).encode()
CVAT = (
    b'<?xml version="1.0"?><annotations><image id="0" name="a.png" width="9" height="7">'
    b'<polygon label="x" points="1,1;5,1;5,4"/>'
    b'<mask label="y" rle="1, 3, 2" left="2" top="2" width="3" height="2"/></image></annotations>'
)
LABEL_STUDIO = json.dumps(
    [
        {
            "data": {"image": "/data/upload/1/a.png"},
            "annotations": [
                {
                    "result": [
                        {
                            "type": "polygonlabels",
                            "original_width": 9,
                            "original_height": 7,
                            "value": {"points": [[10, 10], [60, 10], [60, 70]], "polygonlabels": ["x"]},
                        },
                        {
                            "type": "brushlabels",
                            "original_width": 9,
                            "original_height": 7,
                            "value": {
                                "format": "rle",
                                "rle": [0, 0, 0, 252, 57, 27, 255, 0, 71, 0, 224, 22, 127, 224],
                                "brushlabels": ["y"],
                            },
                        },
                    ]
                }
            ],
        }
    ]
).encode()


def annotations(path: Path) -> None:
    read_annotations(path, path.with_name("a.png"), (9, 7, 1))


MANIFEST = json.dumps(
    {
        "schema": 3,
        "name": "a",
        "source": "b",
        "cases": [
            {
                "case": "01",
                "spec_sha256": PreprocessSpec("LPS", 2, None, (32, 32)).sha256,
                "patient": "01",
                "num_slices": 4,
                "native_shape": [12, 10, 4],
                "affine": [[-1.5, 0, 0, 3], [0, 1.5, 0, 4], [0, 0, 5.0, 5], [0, 0, 0, 1]],
                "label_mapping": {"0": 0, "1": 1},
                "drawn": ["x"],
                "image_files": [{"file": "a/01.nii", "sha256": "0" * 64}],
                "label_files": [{"file": "a/01-mask.nii", "sha256": "1" * 64, "value": 1}],
                "arrays_sha256": {"image.npy": "2" * 64, "label.npy": "3" * 64},
            }
        ],
        "findings": [{"case": "01", "rule": "a", "figure": 0.5, "level": "warning", "text": "b"}],
        "classes": [{"name": "background", "value": 0}, {"name": "x", "value": 1}],
        "choices": {},
        "grey_levels": [],
        "preprocessing": {
            "spec": PreprocessSpec("LPS", 2, None, (32, 32)).to_json(),
            "postprocessing": {"largest_component": True, "erosion_mm": 2.0},
        },
        "ranges": {"unit": "mm", "spacing": [[1, 2]] * 3, "extent": [[9, 10]] * 3, "std": [[3, 4]], "mean": [[5, 6]]},
    }
).encode()
DESCRIPTION = b'{"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "MRI"}, "training": []}'


@functools.cache
def graph() -> bytes:
    """The identity: what is fuzzed is what reads it."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 16, 16]) for name in ("slices", "logits")]
    made = helper.make_graph([helper.make_node("Identity", ["slices"], ["logits"])], "small", ends[:1], ends[1:])
    content: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return content


def about() -> Artefact:
    preprocessing = Preprocessing(PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=1.6, size=(16, 16)))
    classes = Classes(("background", "liver"), (0, 1))
    return Artefact("small", "fp32", preprocessing, classes=classes, num_parameters=7, outputs=("logits",))


def artefact() -> bytes:
    return write_artefact(graph(), about())


class Metadata:
    """Stands in for metadata with any JSON at all, which `write_artefact` hashes as its own."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values

    def to_json(self) -> dict[str, object]:
        return self.values


def read_metadata(path: Path) -> None:
    """Reads an artefact with a text as its metadata, whose hash holds where it is JSON."""
    text, model = path.read_bytes(), path.with_suffix(".onnx")
    content = with_metadata(graph(), KEY, text)
    with contextlib.suppress(ValueError, RecursionError, TypeError):
        content = write_artefact(graph(), Metadata({**json.loads(text)}))  # type: ignore[arg-type]
    model.write_bytes(content)
    load_artefact(model)


@functools.cache
def audited() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(Path(folder, "log.jsonl"))
        for number in range(3):
            log.append({"user": "a", "status": "done", "findings": [{"rule": "oblique", "figure": number}]})
        return log.path.read_bytes()


@functools.cache
def signed() -> tuple[bytes, bytes]:
    """A signature of `artefact()`, and the public key that verifies it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    with tempfile.TemporaryDirectory() as folder:
        model, private = Path(folder, "m.onnx"), Path(folder, "key.pem")
        model.write_bytes(artefact())
        pem = serialization.Encoding.PEM
        private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        return sign_artefact(model, private).read_bytes(), public


def verify_signed(path: Path) -> None:
    (path.parent / "m.onnx").write_bytes(artefact())
    (path.parent / "key.pub").write_bytes(signed()[1])
    verify_signature(path.parent / "m.onnx", path.parent / "key.pub")


FORMS: dict[str, Form] = {
    "nifti-1": Form("a.nii", lambda: nifti(nib.Nifti1Image), 352, read_any, 0.16),
    "nifti-1, scaled": Form("a.nii", scaled_nifti, 352, read_any, 0.08),
    "nifti-2": Form("a.nii", lambda: nifti(nib.Nifti2Image), 544, read_any, 0.1),
    "header in gzip": Form("a.nii.gz", lambda: nifti(nib.Nifti1Image), 352, read_any, 0.1, packed=True),
    "gzip": Form("a.nii.gz", lambda: gzip.compress(nifti(nib.Nifti1Image)), 30, read_any, 0.06),
    "dicom": Form("a.dcm", series, 700, read_any, 0.2),
    "dicom, implicit": Form("a.dcm", lambda: series("1.2.840.10008.1.2"), 700, read_any, 0.06),
    "png": Form("a.png", lambda: picture("PNG"), 60, read_any, 0.04),
    "tiff": Form("a.tif", lambda: picture("TIFF"), 200, read_any, 0.06),
    "tiff lzw": Form("a.tif", lambda: picture("TIFF", compression="tiff_lzw"), 1000, read_any, 0.04),
    "jpeg": Form("a.jpg", lambda: picture("JPEG"), 700, read_any, 0.06),
    "bmp": Form("a.bmp", lambda: picture("BMP"), 60, read_any, 0.02),
    "gif": Form("a.gif", lambda: picture("GIF"), 100, read_any, 0.02),
    "dicom, RLE": Form("a.dcm", lambda: compressed("1.2.840.10008.1.2.5"), 2000, read_any, 0.06),
    "dicom, JPEG-LS": Form("a.dcm", lambda: compressed("1.2.840.10008.1.2.4.80"), 2000, read_any, 0.06),
    "dicom, JPEG 2000": Form("a.dcm", lambda: compressed("1.2.840.10008.1.2.4.90"), 2000, read_any, 0.06),
    "dicom without preamble": Form("a.dcm", lambda: series()[132:], 600, read_any, 0.04),
    "nrrd": Form("a.nrrd", lambda: written("a.nrrd"), 300, read_any, 0.06),
    "nrrd, packed": Form("a.nrrd", lambda: written("packed.nrrd"), 300, read_any, 0.04),
    "mha": Form("a.mha", lambda: written("a.mha"), 300, read_any, 0.06),
    "mha, packed": Form("a.mha", lambda: written("packed.mha"), 300, read_any, 0.04),
    "mgz": Form("a.mgz", lambda: written("a.mgz"), 300, read_any, 0.04),
    "mgh": Form("a.mgh", lambda: gzip.decompress(written("a.mgz")), 284, read_any, 0.06),
    "webp": Form("a.webp", lambda: picture("WEBP"), 200, read_any, 0.02),
    "jpeg 2000": Form("a.jp2", lambda: picture("JPEG2000"), 300, read_any, 0.04),
    "ppm": Form("a.ppm", lambda: picture("PPM"), 20, read_any, 0.02),
    "coco": Form("a.json", lambda: ANNOTATIONS, 10_000, annotations, 0.04),
    "cvat": Form("a.xml", lambda: CVAT, 10_000, annotations, 0.04),
    "label studio": Form("a.json", lambda: LABEL_STUDIO, 10_000, annotations, 0.04),
    "analyze, header": Form("a.hdr", lambda: pair("a.hdr")[".hdr"], 348, read_pair, 0.06),
    "analyze, voxels": Form("a.img", lambda: pair("a.img")[".img"], 100, read_pair, 0.02),
    "mhd": Form("a.mhd", lambda: pair("a.mhd")[".mhd"], 10_000, read_pair, 0.06),
    "checkpoint's state": Form("state.json", lambda: checkpoint()["state.json"], 10_000, read_parts, 0.04),
    "checkpoint's weights": Form(
        "average.safetensors", lambda: checkpoint()["average.safetensors"], 10_000, read_parts, 0.04
    ),
    "tar": Form("a.tar.gz", tarred, 10_000, unzip, 0.04),
    "tar, unpacked": Form("a.tar", lambda: gzip.decompress(tarred()), 600, unzip, 0.04),
    "zip": Form("a.zip", zipped, 10_000, unzip, 0.06),
    "manifest": Form("manifest.json", lambda: MANIFEST, 10_000, read_store, 0.04),
    "splits": Form(
        "s.json", lambda: b'{"schema": 1, "seed": 0, "folds": [["01"], ["02"]], "test": []}', 100, read_splits, 0.02
    ),
    "dataset.json": Form("dataset.json", lambda: DESCRIPTION, 100, dataset_json, 0.02),
    "artefact": Form("m.onnx", artefact, 400, load_artefact, 0.06),
    "artefact's metadata": Form("m.json", lambda: json.dumps(about().to_json()).encode(), 10_000, read_metadata, 0.06),
    "signature": Form("m.onnx.sig", lambda: signed()[0], 10_000, verify_signed, 0.02),
    "audit log": Form("a.jsonl", audited, 10_000, verify_audit, 0.02),
    "config": Form(
        "c.toml", lambda: b"[model]\nbase_width = 8\n[optim]\nepochs = 2.5\nlr = 1e-3\n", 100, load_config, 0.02
    ),
    "labelled": Form("l.json", lambda: b'{"01": ["liver", "spleen"], "02": []}', 100, read_labelled, 0.02),
    "codes": Form("o.json", lambda: b'{"liver": ["SCT", "10200004", "Liver"]}', 100, read_codes, 0.02),
    "key of names": Form(
        "key.csv", lambda: b"name,number\r\nSmith,0001\r\nMiller,0002\r\n", 100, lambda p: Pseudonyms(p, []), 0.02
    ),
}
