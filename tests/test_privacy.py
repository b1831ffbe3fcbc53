"""Names, dates and identifiers planted in every text field of the inputs,
searched for in everything that the commands write; and names of classes that a stranger chose, harmless in all of it.
"""

import io
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from harmless import NAME, as_decathlon, check_files, controls
from planted import DATE, SECRET, leaks, plant_annotations, plant_case, plant_in_dicom, plant_in_nifti

from attunet import export, read_config, train
from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.export.web.write_page import PAGE
from attunet.launch.commands.predict import predict

QUICK = ("model.base_width=4", "model.depth=2", "optim.epochs=1", "run.mixed_precision=no", "run.device=cpu")
SHORTLY = ("--latency-seconds", 0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring", "trainings_here")
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_nothing_of_a_header_is_written(kind: str, source: Path, tmp_path: Path, write_chaos_case, succeed) -> None:
    pytest.importorskip("torch")
    scans = tmp_path / "tree"
    if kind == "nifti":
        as_decathlon(source, scans)
    else:
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

    one = scans / "imagesTr/c1.nii.gz" if kind == "nifti" else next(scans.glob("**/DICOM_anon"))
    out = tmp_path / "out"
    printed = read_and_write(succeed, scans, one, out) + other_commands(succeed, one, out)
    served(out, one)
    assert leaks(out, SECRET, DATE) == []
    if kind == "dicom":  # a DICOM SEG names its patient; nothing else does
        printed += printed_by(succeed, [["predict", out / "model.onnx", one, tmp_path / "segmented.dcm"]])
        assert leaks(tmp_path, SECRET, DATE) == leaks(tmp_path, SECRET)
        assert {path for path in leaks(tmp_path, SECRET) if not path.startswith("tree/")} == {"segmented.dcm"}
    else:
        printed += printed_by(succeed, [["predict", out / "confident.onnx", one.parent, out / "labels"]])
        assert not controls(printed)
        check_files(out)
    assert SECRET not in printed
    assert DATE not in printed


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
@pytest.mark.parametrize("kind", ["picture", "itk"])
def test_nothing_of_other_formats_texts_is_written(kind: str, tmp_path: Path, succeed) -> None:
    """All formats of pictures in one source, all of volumes but NIfTI and DICOM in another."""
    pytest.importorskip("torch")
    pytest.importorskip("PIL.Image" if kind == "picture" else "SimpleITK")
    pictures, volumes = (".png", ".tif", ".jpg", ".gif", ".bmp", ".webp", ".jp2"), (".nrrd", ".mha", ".mgz", ".hdr")
    endings = pictures if kind == "picture" else volumes
    for number, ending in enumerate(endings):
        plant_case(tmp_path / "scans", f"{number:02d}", ending)
    with_texts = [path for path in (tmp_path / "scans").rglob("*.*") if path.suffix not in (".img", ".mat")]
    assert len(leaks(tmp_path / "scans", SECRET)) == len(with_texts)  # planted indeed

    out = tmp_path / "out"
    printed = read_and_write(succeed, tmp_path / "scans", tmp_path / "scans" / "images", out, "data.size=32")
    assert len({path.stem for path in (out / "labels").glob("[!.]*")}) == len(endings)
    if kind == "itk":
        served(out, tmp_path / "scans" / "images" / "00.nrrd")
    assert leaks(out, SECRET) == []
    assert SECRET not in printed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coco", "cvat", "label studio"])
def test_nobody_who_drew_is_written(kind: str, tmp_path: Path, succeed) -> None:
    pytest.importorskip("PIL.Image")
    source, out = tmp_path / "source", tmp_path / "out"
    plant_annotations(source, kind, 4)
    assert len(leaks(source, SECRET)) == 5  # planted indeed
    commands: list[list[object]] = [
        ["inspect", source, "--picture", out / "source.png"],
        ["prepare", source, out / "store", "--folds", 2, "--set", "data.size=32"],
        ["inspect", out / "store", "--picture", out / "store.png"],
    ]
    printed = printed_by(succeed, commands)
    assert "cell" in printed
    assert leaks(out, SECRET, DATE) == []
    assert SECRET not in printed


def read_and_write(succeed, scans: Path, one: Path, out: Path, *settings: str) -> str:
    """Calls the commands that open files of the source, one after the other; gives what they print."""
    store, run, model = out / "store", out / "run", out / "model.onnx"
    size, log = [option for setting in settings for option in ("--set", setting)], out / "log.jsonl"
    commands: list[list[object]] = [
        ["prepare", scans, store, "--folds", 2, *size],
        ["inspect", scans, "--picture", out / "source.png"],
        ["inspect", store, "--picture", out / "store.png", "--augmented", out / "augmented.png"],
        ["train", store, run, "--fold", 0, *quick(), "--set", "run.tracker=tensorboard"],
        ["export", run, model, "--license", NAME, *(f"--output={name}" for name in ("labels", "logits", "attention"))],
        ["evaluate", store, run, model, "--out", out / "results", "--fold", 0, *SHORTLY],
        ["report", out / "results", "--cases", "all"],
        ["predict", model, one, out / ("one.nii.gz" if one.name != "images" else "labels"), "--audit", log],
        ["verify", "--audit", log],
    ]
    return printed_by(succeed, commands)


def other_commands(succeed, one: Path, out: Path) -> str:
    """Calls the other commands, after `read_and_write`; gives what they print. Networks are compared for NIfTI."""
    store, run, model, networks = out / "store", out / "run", out / "model.onnx", out / "cv" / "default" / "unet"
    other = [] if one.is_dir() else ["--model", "attention_unet"]
    commands: list[list[object]] = [
        ["inspect", run],
        ["inspect", run, "--lineage"],
        ["crossvalidate", store, out / "cv", "--model", "unet", *other, *quick()],
        ["report", out / "cv"],
        ["export", run, out / "whole.onnx", "--whole"],
        ["export", run, out / "repository", "--triton", "organs"],
        ["inspect", model, "--lineage"],
        ["verify", model],
        ["card", model, "-o", out / "card.md"],
        ["card", model],
        ["benchmark", run, store, "--out", out / "benchmark", "--provider", "cpu", "--precision", "fp32", *SHORTLY],
        ["predict", model, one, out / "maps.nii.gz", "--attention", "--uncertainty"],
        ["export", networks, out / "confident.onnx", "--confidence", out / "cv"],
        ["predict", out / "confident.onnx", one, out / "confident.nii.gz"],
        ["predict", out / "whole.onnx", one, out / "whole.nii.gz"],
        ["predict", run, one, out / "of-run.nii.gz"],
    ]
    if (PAGE / "index.html").is_file():
        commands += [["web", model, out / "page"], ["web", model, out / "page.html"]]
    return printed_by(succeed, commands)


def quick() -> list[str]:
    return [option for setting in QUICK for option in ("--set", setting)]


def printed_by(succeed, commands: list[list[object]]) -> str:
    return "".join(done.out + done.err for done in (succeed(*command) for command in commands))


def served(out: Path, scan: Path) -> None:
    """Writes what the server answers to a file, or to a zip of a folder, and what it logs."""
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    from attunet.export.serve.app import make_app
    from attunet.export.serve.service import Service
    from attunet.export.serve.settings import Settings
    from attunet.export.serve.work.served_model import load_models
    from attunet.privacy.audit_log import AuditLog
    from attunet.system.private_folder import PrivateFolder

    body = scan.read_bytes() if scan.is_file() else zipped(scan)
    models = load_models([out / "model.onnx"], num_threads=1, audit_log=AuditLog(out / "server.jsonl"))
    with PrivateFolder(out) as folder:
        app = make_app(Service(Settings(), models, folder))
        with testclient.TestClient(app, base_url="http://localhost") as client:
            for kind, name in (("application/gzip", "answer.nii.gz"), ("application/json", "answer.json")):
                answer = client.post("/v1/models/model/segment", content=body, headers={"Accept": kind})
                (out / name).write_bytes(answer.content)
                (out / f"{name}.headers").write_text(repr(answer.headers))
                assert answer.status_code == 200, answer.text
            (out / "metrics").write_bytes(client.get("/metrics").content)


def zipped(folder: Path) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return data.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
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
