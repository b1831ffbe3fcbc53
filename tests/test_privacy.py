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

from attunet import export, read_config, train
from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.launch.commands.predict import predict

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
def test_nothing_of_a_header_is_written(kind: str, source: Path, tmp_path: Path, write_chaos_case, succeed) -> None:
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

    one = (
        next(scans.glob("*-src.nii.gz"))
        if kind == "nifti"
        else next(path for path in scans.rglob("DICOM_anon") if path.is_dir())
    )
    out = tmp_path / "out"
    printed = every_command(succeed, scans, one, out)
    served(out, one)
    assert leaks(out, SECRET, "19700131", "20191224") == []
    assert SECRET not in printed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["picture", "itk"])
def test_nothing_of_other_formats_texts_is_written(kind: str, tmp_path: Path, succeed) -> None:
    """PNG, TIFF and JPEG in one source, NRRD and MHA in another."""
    pytest.importorskip("torch")
    pytest.importorskip("PIL.Image" if kind == "picture" else "SimpleITK")
    endings = [".png", ".tif", ".jpg", ".png"] if kind == "picture" else [".nrrd", ".mha", ".nrrd", ".mha"]
    for number, ending in enumerate(endings):
        plant_case(tmp_path / "scans", f"{number:02d}", ending)
    assert len(leaks(tmp_path / "scans", SECRET)) == 8  # planted indeed

    out = tmp_path / "out"
    printed = every_command(succeed, tmp_path / "scans", tmp_path / "scans" / "images", out, "data.size=32")
    assert len(list((out / "labels").iterdir())) == 4
    if kind == "itk":
        served(out, tmp_path / "scans" / "images" / "00.nrrd")
    assert leaks(out, SECRET) == []
    assert SECRET not in printed


def every_command(succeed, scans: Path, one: Path, out: Path, *settings: str) -> str:
    """Calls the commands one after the other; gives what they print."""
    store, run, model = out / "store", out / "run", out / "model.onnx"
    quick = [option for setting in QUICK for option in ("--set", setting)]
    size = [option for setting in settings for option in ("--set", setting)]
    shortly, log = ["--latency-seconds", 0.02], out / "log.jsonl"
    commands: list[list[object]] = [
        ["prepare", scans, store, "--folds", 2, *size],
        ["inspect", scans, "--picture", out / "source.png"],
        ["inspect", store, "--picture", out / "store.png", "--augmented", out / "augmented.png"],
        ["train", store, run, "--fold", 0, *quick, "--set", "run.tracker=tensorboard"],
        ["inspect", run],
        ["inspect", run, "--lineage"],
        ["crossvalidate", store, out / "cv", "--model", "unet", *quick],
        ["report", out / "cv"],
        ["export", run, model],
        ["export", out / "cv" / "default" / "unet", out / "whole.onnx", "--whole"],
        ["export", run, out / "repository", "--triton", "organs"],
        ["inspect", model, "--lineage"],
        ["card", model, "-o", out / "card.md"],
        ["evaluate", store, run, model, "--out", out / "results", "--fold", 0, *shortly],
        ["report", out / "results", "--cases", "all"],
        ["benchmark", run, store, "--out", out / "benchmark", "--provider", "cpu", "--precision", "fp32", *shortly],
        ["predict", model, one, out / ("one.nii.gz" if one.name != "images" else "labels"), "--audit", log],
        ["verify", "--audit", log],
    ]
    return "".join(done.out + done.err for done in (succeed(*command) for command in commands))


def served(out: Path, scan: Path) -> None:
    """Writes what the server answers to a file, or to a zip of a folder, and what it logs."""
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    from attunet.export.serve.app import make_app
    from attunet.export.serve.scans.private_folder import PrivateFolder
    from attunet.export.serve.service import Service
    from attunet.export.serve.settings import Settings
    from attunet.export.serve.work.served_model import load_models
    from attunet.system.audit_log import AuditLog

    body = scan.read_bytes() if scan.is_file() else zipped(scan)
    models = load_models([out / "model.onnx"], num_threads=1, audit_log=AuditLog(out / "server.jsonl"))
    with PrivateFolder(out) as folder:
        app = make_app(Service(Settings(), models, folder))
        with testclient.TestClient(app, base_url="http://localhost") as client:
            for kind in ("application/gzip", "application/json"):
                answer = client.post("/v1/models/model/segment", content=body, headers={"Accept": kind})
                (out / f"answer-{kind[-4:]}").write_bytes(repr(answer.headers).encode() + answer.content)
                assert answer.status_code == 200, answer.text
            (out / "metrics").write_bytes(client.get("/metrics").content)


def zipped(folder: Path) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return data.getvalue()


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
