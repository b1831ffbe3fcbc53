"""Names, dates and identifiers planted in every text field of the inputs, searched for in everything that the commands write."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet import export, prepare, read_config, train
from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.launch.commands.inspect import describe
from attunet.launch.commands.predict import predict
from attunet.sources.find_cases import DEFAULTS

SECRET = "ZZTOPSECRET"
QUICK = ("model.base_width=4", "model.depth=2", "optim.epochs=1", "run.mixed_precision=no", "run.device=cpu")


def plant_in_nifti(path: Path) -> None:
    image = nib.load(path)
    header = image.header
    header["descrip"], header["aux_file"] = f"{SECRET} descrip", f"{SECRET} aux"
    header["db_name"], header["intent_name"] = f"{SECRET} db"[:18], f"{SECRET}"[:16]
    header["data_type"] = SECRET[:10]
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"{SECRET} 1970-01-31".encode()))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header), path)


def plant_in_dicom(path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(path)
    for keyword in ("PatientName", "PatientID", "PatientAddress", "InstitutionName", "ReferringPhysicianName", "StudyDescription"):
        setattr(dataset, keyword, SECRET)
    for keyword in ("SeriesDescription", "ProtocolName", "PatientComments", "ImageComments", "OperatorsName", "AccessionNumber"):
        setattr(dataset, keyword, SECRET[:16])
    dataset.PatientBirthDate, dataset.StudyDate = "19700131", "20191224"
    block = dataset.private_block(0x0041, "attunet test", create=True)
    block.add_new(0x01, "LO", SECRET)
    dataset.save_as(path)


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is in it if it is compressed."""
    data = path.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def leaks(folder: Path, *secrets: str) -> list[str]:
    """Names of files below `folder` that hold a secret, as UTF-8 or as UTF-16."""
    needles = [needle for secret in secrets for needle in (secret.encode(), secret.encode("utf-16-le"))]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path.relative_to(folder)) for path in files if any(needle in data for data in contents(path) for needle in needles)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_nothing_of_a_header_is_written(kind: str, source: Path, tmp_path: Path, write_chaos_case, log_lines: list[str]) -> None:
    pytest.importorskip("torch")
    scans = source
    if kind == "dicom":
        scans = tmp_path / "tree"
        for number, path in enumerate(sorted(source.glob("*-src.nii.gz")), 1):
            data = np.asarray(nib.load(path).dataobj)
            labels = np.asarray(nib.load(path.with_name(path.name.replace("-src", "-mask"))).dataobj)
            write_chaos_case(scans, number, data, labels, np.diag([2.0, 2.0, 8.0, 1.0]))
    for path in scans.rglob("*"):
        if path.name.endswith(".nii.gz"):
            plant_in_nifti(path)
        elif path.suffix == ".dcm":
            plant_in_dicom(path)
    assert leaks(scans, SECRET)  # planted indeed

    out = tmp_path / "out"
    out.mkdir()
    config = read_config(None, QUICK)
    store = prepare(scans, out / "store", config.data, folds=2)
    lines = [*describe(scans, DEFAULTS), *describe(out / "store", DEFAULTS)]
    train(out / "store", out / "run", config, fold=0)
    export(out / "run", out / "model.onnx")
    evaluate(out / "store", [out / "run", out / "model.onnx"], out / "results", fold=0, latency_seconds=0.05)
    one = next(iter(store.cases)).name
    given = next(scans.glob("*-src.nii.gz")) if kind == "nifti" else next(path for path in scans.rglob("DICOM_anon") if path.is_dir())
    predict(out / "model.onnx", given, out / f"{one}.nii.gz")
    if kind == "dicom":
        pytest.importorskip("highdicom")

    assert leaks(out, SECRET, "19700131", "20191224") == []
    assert not [line for line in [*lines, *log_lines] if SECRET in line]


@pytest.mark.slow
def test_no_path_reaches_what_is_handed_on(small_store, tmp_path: Path) -> None:
    """The artefact, its card and label maps go to others: no folder's name is in them."""
    pytest.importorskip("torch")
    folder = tmp_path / "Jane_Doe_1970"
    config = read_config(None, QUICK)
    train(small_store.path, folder / "run", config, fold=0)
    handed_on = tmp_path / "out"
    export(folder / "run", handed_on / "model.onnx")
    predict(handed_on / "model.onnx", next(small_store.source_root.glob("*-src.nii.gz")), handed_on / "labels.nii.gz")
    evaluate(small_store.path, [handed_on / "model.onnx"], handed_on / "results", fold=0, latency_seconds=0.05)
    assert leaks(handed_on, "Jane_Doe_1970", str(small_store.source_root)) == []
