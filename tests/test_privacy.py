"""Names, dates and identifiers planted in every text field of the inputs,
searched for in everything that the commands write.
"""

import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet import export, prepare, read_config, train
from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.launch.commands.inspect import describe
from attunet.launch.commands.predict import AuditOptions, predict
from attunet.sources.case_files import DEFAULTS

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
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientAddress",
        "InstitutionName",
        "ReferringPhysicianName",
        "StudyDescription",
    ):
        setattr(dataset, keyword, SECRET)
    for keyword in (
        "SeriesDescription",
        "ProtocolName",
        "PatientComments",
        "ImageComments",
        "OperatorsName",
        "AccessionNumber",
    ):
        setattr(dataset, keyword, SECRET[:16])
    dataset.PatientBirthDate, dataset.StudyDate = "19700131", "20191224"
    block = dataset.private_block(0x0041, "attunet test", create=True)
    block.add_new(0x01, "LO", SECRET)
    dataset.save_as(path)


def plant_in_picture(image: Any, path: Path) -> None:
    """Saves a picture with secrets in PNG's texts, TIFF's tags, EXIF and JPEG's comment."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    texts, tags, exif = PngInfo(), ImageFileDirectory_v2(), Image.Exif()
    texts.add_text("Comment", SECRET)
    texts.add_itxt("Author", SECRET)
    exif[0x010E], exif[0x9C9D] = SECRET, SECRET.encode("utf-16-le")  # ImageDescription, XPAuthor
    for tag in (270, 305, 315, 65000):  # description, software, artist, a private one
        tags[tag] = SECRET
    options = {
        ".png": {"pnginfo": texts, "exif": exif},
        ".tif": {"tiffinfo": tags},
        ".jpg": {"exif": exif, "comment": SECRET.encode()},
    }
    image.save(path, **options[path.suffix])


def plant_in_itk(array: np.ndarray, path: Path) -> None:
    """Writes `(Z, Y, X)` as NRRD or MHA with secrets in keys, values and comments."""
    import SimpleITK

    volume = SimpleITK.GetImageFromArray(array)
    volume.SetSpacing((2, 2, 8))
    for key in ("Comment", "PatientName", "ITK_notes", "0010|0010", SECRET):
        volume.SetMetaData(key, SECRET)
    SimpleITK.WriteImage(volume, str(path))
    if path.suffix == ".nrrd":
        first, _, rest = path.read_bytes().partition(b"\n")
        path.write_bytes(first + b"\n# " + SECRET.encode() + b"\n" + rest)


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
    return [
        str(path.relative_to(folder))
        for path in files
        if any(needle in data for data in contents(path) for needle in needles)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_nothing_of_a_header_is_written(
    kind: str, source: Path, tmp_path: Path, write_chaos_case, log_lines: list[str]
) -> None:
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
    given = (
        next(scans.glob("*-src.nii.gz"))
        if kind == "nifti"
        else next(path for path in scans.rglob("DICOM_anon") if path.is_dir())
    )
    predict(out / "model.onnx", given, out / f"{one}.nii.gz")
    if kind == "dicom":
        pytest.importorskip("highdicom")

    assert leaks(out, SECRET, "19700131", "20191224") == []
    assert not [line for line in [*lines, *log_lines] if SECRET in line]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["picture", "itk"])
def test_nothing_of_other_formats_texts_is_written(kind: str, tmp_path: Path, log_lines: list[str]) -> None:
    """PNG, TIFF and JPEG in one source, NRRD and MHA in another."""
    pytest.importorskip("torch")
    pytest.importorskip("PIL.Image" if kind == "picture" else "SimpleITK")
    endings = [".png", ".tif", ".jpg", ".png"] if kind == "picture" else [".nrrd", ".mha", ".nrrd", ".mha"]
    for number, ending in enumerate(endings):
        plant_case(tmp_path / "scans", f"{number:02d}", ending)
    assert len(leaks(tmp_path / "scans", SECRET)) == 8  # planted indeed

    out, config = tmp_path / "out", read_config(None, (*QUICK, "data.size=32"))
    store = prepare(tmp_path / "scans", out / "store", config.data, folds=2)
    train(store.path, out / "run", config, fold=0)
    export(out / "run", out / "model.onnx")
    predict(out / "model.onnx", tmp_path / "scans" / "images", out / "labels", audit=AuditOptions(out / "log.jsonl"))
    evaluate(store.path, [out / "model.onnx"], out / "results", fold=0, latency_seconds=0.05)
    assert len(list((out / "labels").iterdir())) == 4
    assert leaks(out, SECRET) == []
    assert not [line for line in [*describe(tmp_path / "scans", DEFAULTS), *log_lines] if SECRET in line]


def plant_case(folder: Path, name: str, ending: str) -> None:
    """An image and its mask with secrets in every text that their format has; JPEG's mask is PNG."""
    from PIL import Image

    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (6, 36, 40)), indexing="ij"))
    labels = ((grid**2).sum(axis=0) < 0.4).astype(np.uint8)
    image = 100 * labels + np.random.default_rng(int(name)).normal(60, 9, labels.shape)
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        path = folder / kind / f"{name}{'.png' if (kind, ending) == ('labels', '.jpg') else ending}"
        if ending in (".nrrd", ".mha"):
            plant_in_itk(array.astype(np.uint8 if kind == "labels" else np.int16), path)
        else:
            grey = array[3] * (255 if kind == "labels" else 1)
            plant_in_picture(Image.fromarray(grey.clip(0, 255).astype(np.uint8)), path)


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
