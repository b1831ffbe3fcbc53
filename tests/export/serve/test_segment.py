"""Scans in, label maps out: the answers of `/v1`."""

import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from file_limit import file_limit

from attunet.errors import InputError, RunError
from attunet.export.runtime import Segmenter
from attunet.export.runtime.observed_case import ObservedCase
from attunet.export.runtime.origin import is_finished
from attunet.export.serve import Client
from attunet.export.serve import client as client_module
from attunet.export.serve.scans.scan import open_scan
from attunet.export.serve.settings import Settings
from attunet.io.readers import read_volume
from attunet.sources.input import Input
from attunet.system.atomic_files import sha256


def zipped(files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    return buffer.getvalue()


@pytest.fixture
def series(tmp_path, write_series) -> list[Path]:
    data = np.random.default_rng(1).integers(0, 600, (40, 48, 5)).astype(np.int16)
    uids = {"StudyInstanceUID": "1.2.826.0.1.98", "FrameOfReferenceUID": "1.2.826.0.1.97"}
    patient = {"PatientName": "Planted^Name", "PatientID": "4711"}
    return write_series(tmp_path / "series", data, np.diag([-1.5, -1.5, 5, 1]), **uids, **patient)


def test_the_label_map_has_the_bytes_that_predict_writes(server, scan, predicted):
    body = scan.read_bytes()
    answer = server.post(content=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.content == predicted
    assert server.post(content=None, files={"scan": ("patient name.nii.gz", body)}).content == predicted
    assert server.post(content=body, headers={"Accept": "text/html, application/gzip;q=0.5"}).content == predicted


def test_a_scan_without_gzip_is_recognised_by_its_content(server, scan, predicted):
    assert server.post(content=gzip.decompress(scan.read_bytes())).content == predicted


def test_volumes_findings_and_the_artefacts_hash_are_in_headers_and_in_the_summary(server, scan, artefact):
    answer = server.post(content=scan.read_bytes())
    volumes = json.loads(answer.headers["x-attunet-volumes"])
    segmenter = Segmenter(artefact, num_threads=1)
    indices = segmenter.predict_file(scan).indices
    counts = np.bincount(indices.ravel(), minlength=5)[1:]
    amounts = dict(zip(segmenter.classes.foreground, (counts * 1.5 * 1.5 * 5 / 1000).tolist(), strict=True))
    assert volumes == {"unit": "ml", "volumes": pytest.approx(amounts, rel=1e-5)}
    assert answer.headers["x-attunet-model-sha256"] == sha256(artefact)
    summary = server.post("/v1/models/small/segment?answer=summary", scan.read_bytes()).json()
    assert summary["volumes"] == volumes["volumes"]
    assert summary["shape"] == [40, 48, 5]
    assert summary["spacing"] == [1.5, 1.5, 5]
    assert set(summary["seconds"]) == {"upload", "queue", "read", "network", "write"}


def test_a_zip_of_a_dicom_series_gives_nifti_or_dicom_seg(attunet, server, series, artefact, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    body = zipped(series)
    expected = tmp_path / "expected.nii.gz"
    assert attunet("predict", artefact, series[0].parent, expected).code == 0
    assert server.post(content=body).content == expected.read_bytes()
    answer = server.post(content=body, headers={"Accept": "application/dicom"})
    assert answer.headers["content-type"] == "application/dicom"
    segmentation = pydicom.dcmread(io.BytesIO(answer.content))
    indices = Segmenter(artefact, num_threads=1).predict_file(series[0].parent).indices
    assert segmentation.PatientID == "4711"
    assert segmentation.pixel_array.sum() == (indices > 0).sum()
    with Client(server.url) as client:
        client.segment(series[0].parent, tmp_path / "labels.dcm")
    assert (pydicom.dcmread(tmp_path / "labels.dcm").pixel_array == segmentation.pixel_array).all()


def test_a_zip_of_a_series_in_two_folders_is_refused(server, series):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number, path in enumerate(series):
            archive.write(path, f"{'' if number < 3 else 'more/'}{number}.dcm")
    answer = server.post(content=content.getvalue())
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "scan.zip: must hold one series or one volume: DICOM below its own files is left out, first in 'more'",
    )


def test_no_data_set_is_looked_for_in_a_zip(tmp_path, monkeypatch):
    """That may take hours: annotations of 250 MB, a thousand folders of images beside as many of masks."""
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "a.nii")
    with zipfile.ZipFile(tmp_path / "body", "w") as archive:
        archive.write(tmp_path / "a.nii", "images/a.nii")
        archive.writestr("labels/a.json", "[]")
    monkeypatch.setattr("attunet.sources.inputs.find_cases", None)
    assert open_scan([tmp_path / "body"], tmp_path, Settings()).files[0].name == "a.nii"


def test_dicom_with_the_mark_of_a_tiff_before_its_own_is_dicom(attunet, server, artefact, series, tmp_path):
    """Its first 128 bytes are anybody's; some files are both."""
    pytest.importorskip("pydicom")
    both = tmp_path / "both.dcm"
    both.write_bytes(b"II*\0" + series[0].read_bytes()[4:])
    assert attunet("predict", artefact, both, tmp_path / "labels.nii.gz").code == 0
    assert server.post(content=both.read_bytes()).content == (tmp_path / "labels.nii.gz").read_bytes()


def test_organs_of_a_scan_in_micrometres_have_a_volume_and_the_reading_is_told(
    attunet, server, artefact, write_scan, tmp_path
):
    image = nib.load(write_scan(tmp_path / "large.nii.gz", (40, 48, 5), spacing=1.5))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "scan.nii.gz")
    body = (tmp_path / "scan.nii.gz").read_bytes()
    volumes = server.post("/v1/models/small/segment?answer=summary", body).json()["volumes"]
    assert 0 < sum(volumes.values()) <= 40 * 48 * 5 * 1.5e-3 * 1.5e-3 * 5e-3 / 1000
    done = attunet("predict", "--server", server.url, tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz")
    assert "scan.nii.gz: lengths are in micrometres and converted to mm [nifti-units]" in done.out
    assert all(f"{name} {amount:.3g} ml" in done.out for name, amount in volumes.items())
    done = attunet("predict", artefact, tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz")
    assert all(f"{name} {amount:.3g} ml" in done.out for name, amount in volumes.items())


def test_a_picture_gives_a_picture(attunet, server, artefact, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "picture.png")
    assert attunet("predict", artefact, tmp_path / "picture.png", tmp_path / "labels.png").code == 0
    answer = server.post(content=(tmp_path / "picture.png").read_bytes())
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (tmp_path / "labels.png").read_bytes()


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mgz"])
def test_other_formats_are_recognised_by_their_content(attunet, server, artefact, scan, tmp_path, ending):
    image = nib.load(scan)
    path = tmp_path / f"other{ending}"
    if ending == ".mgz":
        nib.save(nib.MGHImage(np.asarray(image.dataobj).astype(np.float32), image.affine), path)
    else:
        itk = pytest.importorskip("SimpleITK")
        itk.WriteImage(itk.ReadImage(str(scan)), str(path), True)
    assert attunet("predict", artefact, path, tmp_path / "labels.nii.gz").code == 0
    answer = server.post(content=path.read_bytes(), headers={"Accept": "application/gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.content == (tmp_path / "labels.nii.gz").read_bytes()
    # The scan's own format
    assert server.post(content=path.read_bytes()).headers["content-type"] == f"application/x-{ending[1:]}"
    (tmp_path / "scans").mkdir()
    path.rename(tmp_path / "scans" / path.name)
    assert attunet("predict", "--server", server.url, tmp_path / "scans", tmp_path / "out").code == 0
    assert [written.name for written in (tmp_path / "out").glob("[!.]*")] == [path.name]


def test_nothing_is_left_and_nothing_of_a_patient_is_logged(server, series, scan):
    server.post(content=None, files={"scan": ("Planted^Name.nii.gz", scan.read_bytes())})
    server.post(content=zipped(series))
    server.post("/v1/models/Planted^Name/segment", b"")
    server.post("/v1/models/small/segment?patient=Planted^Name", b"Planted^Name")
    assert server.uploads() == []
    assert not any("Planted" in line or "4711" in line for line in server.lines)
    assert any(line.startswith("POST /v1/models/{name}/segment small 200") for line in server.lines)


def test_the_client_gives_the_same_files(server, scan, predicted, series, tmp_path):
    with Client(server.url) as client:
        answer = client.segment(scan, tmp_path / "labels.nii.gz")
        assert answer.content == predicted == (tmp_path / "labels.nii.gz").read_bytes()
        assert client.segment(series[0].parent).content[:2] == b"\x1f\x8b"
        assert [model["name"] for model in client.models()] == ["small"]
        assert client.segment([str(scan)], str(tmp_path / "new/labels.nii.gz")).content == predicted
        assert (tmp_path / "new/labels.nii.gz").read_bytes() == predicted


def test_channels_in_any_order_are_the_scan_that_predict_finds(tmp_path, monkeypatch):
    files = [tmp_path / f"case_{name}.nii.gz" for name in ("t1", "flair")]
    for file in files:
        file.write_bytes(file.name.encode())
    described = {"name": "m", "channel_names": ["t1", "flair"]}
    answer = SimpleNamespace(model_sha256="f" * 64, content=b"labels")
    monkeypatch.setattr(client_module, "answer_of", lambda *_: answer)
    monkeypatch.setattr(client_module, "write_labels", lambda content, path: path.write_bytes(content))
    with Client("http://127.0.0.1:9") as client:
        monkeypatch.setattr(client, "model", lambda name: described)
        monkeypatch.setattr(client, "_send", lambda *_: None)
        client.segment(files[::-1], tmp_path / "out/case.nii.gz")
    assert is_finished(tmp_path / "out/case.nii.gz", Input("case", tuple(files)), "f" * 64)


def test_a_place_that_cannot_be_written_is_refused_before_the_scan_is_sent(scan, series, tmp_path):
    before = {path: path.read_bytes() for path in (scan, *series)}
    places = {
        (scan, scan): "would overwrite the input",
        (series[0].parent, series[1]): "must lie outside of the input's folder",
        (scan, scan / "labels.nii.gz"): "cannot be written: ",
        (scan, tmp_path / "labels.txt"): "must end in",
        (scan, tmp_path / "folder.nii.gz"): "is a folder",
    }
    (tmp_path / "folder.nii.gz").mkdir()
    with Client("http://127.0.0.1:9", retry_s=0) as client:
        for (source, out), reason in places.items():
            with pytest.raises(InputError, match=reason):
                client.segment(source, out, model="small")
    assert {path: path.read_bytes() for path in before} == before


def test_a_full_temporary_folder_is_named(series, tmp_path):
    with (
        file_limit(1000),
        Client("http://127.0.0.1:9", retry_s=0) as client,
        pytest.raises(RunError, match=r"series\.zip: cannot be"),
    ):
        client.segment(series[0].parent, tmp_path / "labels.nii.gz", model="small")


def test_a_folder_that_cannot_be_written_is_not_the_servers_fault(server, scan):
    with Client(server.url) as client, pytest.raises(InputError, match=r"^/proc.*: cannot be written: "):
        client.segment(scan, "/proc/labels.nii.gz")


def test_a_model_without_a_name_is_the_users_mistake(server, scan):
    with Client(server.url) as client, pytest.raises(InputError, match="serves small; not ''"):
        client.segment(scan, model="")


def test_a_client_replaces_no_scan_and_the_files_of_its_label_map_alone(
    attunet, server, scan, sure, artefact, tmp_path
):
    own = tmp_path / "scans/a.nii.gz"
    own.parent.mkdir()
    own.write_bytes(scan.read_bytes())
    labels = tmp_path / "out/a.nii.gz"
    assert attunet("predict", sure, own.parent, labels.parent).code == 0
    with Client(server.url) as client:
        for out in (own, tmp_path / "scans/b.nii.gz"):
            out.write_bytes(own.read_bytes())
            with pytest.raises(InputError, match=r"would overwrite the input|is there, and no file says"):
                client.segment(str(own), out)
            assert out.read_bytes() == scan.read_bytes()
        client.segment([str(own)], labels)
        client.segment(own, tmp_path / "new/folder/a.nii.gz")
    (tmp_path / "scans/b.nii.gz").unlink()
    assert [path.name for path in labels.parent.glob("a*")] == ["a.nii.gz"]
    assert "was made by another model" in attunet("predict", sure, own.parent, labels.parent).err
    assert "0 segmented, 1 finished before" in attunet("predict", artefact, own.parent, labels.parent).out


def test_a_folder_that_a_server_goes_on_with_has_no_tables_of_before(attunet, serve, scan, sure, tmp_path):
    (tmp_path / "scans").mkdir()
    for name in "ab":
        (tmp_path / f"scans/{name}.nii.gz").write_bytes(scan.read_bytes())
    call = ["predict", "--server", serve(model=sure).url, tmp_path / "scans", tmp_path / "out"]
    assert attunet("predict", sure, tmp_path / "scans", tmp_path / "out").code == 0
    assert attunet(*call).code == 0
    assert (tmp_path / "out/confidence.csv").exists()
    (tmp_path / "out/a.nii.gz").unlink()
    assert attunet(*call).code == 0
    kept = ["a.nii.gz", "b-confidence.json", "b.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == kept
    assert "1 segmented" in attunet("predict", sure, tmp_path / "scans", tmp_path / "out").out
    assert len((tmp_path / "out/confidence.csv").read_text().splitlines()) == 3


def test_a_client_says_what_is_wrong_with_a_server(scan, tmp_path):
    with pytest.raises(InputError, match="must begin with http"):
        Client("localhost:8000")
    with (
        Client("http://127.0.0.1:9", retry_s=0) as client,
        pytest.raises(RunError, match=r"127\.0\.0\.1:9: ConnectError"),
    ):
        client.segment(scan, tmp_path / "labels.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_predict_on_a_server_writes_what_predict_writes(attunet, server, scan, predicted, tmp_path):
    done = attunet("predict", "--server", server.url, scan, tmp_path / "one.nii.gz")
    assert done.code == 0, done.err
    assert (tmp_path / "one.nii.gz").read_bytes() == predicted
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/a.nii.gz").write_bytes(scan.read_bytes())
    (tmp_path / "scans/b.nii.gz").write_bytes(scan.read_bytes()[:500])
    done = attunet("predict", "--server", server.url, "small", tmp_path / "scans", tmp_path / "out")
    assert done.code == 1
    assert "1 of 2 volumes could not be segmented" in done.err
    assert (tmp_path / "out/a.nii.gz").read_bytes() == predicted
    (tmp_path / "scans/a.nii").write_bytes(gzip.decompress(scan.read_bytes()))
    done = attunet("predict", "--server", server.url, tmp_path / "scans", tmp_path / "out")
    assert (done.code, "3 of 3 volumes could not be segmented" in done.err) == (1, True)
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["a.nii.gz"]


def test_a_scan_that_takes_more_memory_than_there_is_does_not_stop_the_others(
    attunet, server, scan, tmp_path, monkeypatch
):
    (tmp_path / "scans").mkdir()
    for name in "ab":
        (tmp_path / f"scans/{name}.nii.gz").write_bytes(scan.read_bytes())
    segment = Client.segment

    def lacking(self, files, *arguments, **named):
        if files[0].name == "a.nii.gz":
            raise MemoryError
        return segment(self, files, *arguments, **named)

    monkeypatch.setattr(Client, "segment", lacking)
    done = attunet("predict", "--server", server.url, tmp_path / "scans", tmp_path / "out")
    assert (done.code, "1 of 2 volumes could not be segmented" in done.err) == (1, True)
    assert f"error: {tmp_path / 'scans/a.nii.gz'}: MemoryError" in done.out + done.err
    assert (tmp_path / "out/b.nii.gz").exists()


def test_two_predictions_into_one_folder_are_one_at_a_time_on_a_server_too(attunet, server, scan, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/a.nii.gz").write_bytes(scan.read_bytes())
    code = "import sys, time; from pathlib import Path; from attunet.system.lock import writing\n"
    code += "with writing(Path(sys.argv[1]), 'prediction'): print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        done = attunet("predict", "--server", server.url, tmp_path / "scans", tmp_path / "out")
        holder.kill()
    assert (done.code, f"in use by process {holder.pid}" in done.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_processes_share_the_scans_that_a_server_segments(attunet, server, scan, tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    for name in "abc":
        (tmp_path / f"scans/{name}.nii.gz").write_bytes(scan.read_bytes())
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    assert attunet("predict", "--server", server.url, tmp_path / "scans", tmp_path / "out").code == 0
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["b.nii.gz"]


def test_the_summary_and_a_header_have_the_estimates_of_an_artefact_with_an_estimator(serve, scan, sure):
    server = serve(model=sure)
    response = server.post("/v1/models/sure/segment?answer=summary", scan.read_bytes())
    record = response.json()["confidence"]
    assert set(record["organs"]) == {"liver", "right kidney", "left kidney", "spleen"}
    segmenter = Segmenter(sure, num_threads=1)
    volume = read_volume(scan)
    prepared = segmenter.prepare(volume)
    observed = ObservedCase(segmenter, segmenter.estimator, volume, prepared)
    indices = segmenter.predict_prepared(prepared, observers=observed.observers)
    expected = observed.confidence(indices, ())
    assert expected is not None
    for name, organ in expected.to_json()["organs"].items():
        assert record["organs"][name]["dice"] == pytest.approx(organ["dice"], abs=1e-3)
    with Client(server.url) as client:
        answer = client.segment(scan)
    assert answer.confidence == json.loads(response.headers["x-attunet-confidence"])
    assert answer.confidence["review"] == record["review"]


def test_the_audit_log_has_the_estimates(serve, scan, sure, tmp_path):
    response = serve("--audit", tmp_path / "log.jsonl", model=sure).post("/v1/models/sure/segment", scan.read_bytes())
    (record,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert record["confidence"] == json.loads(response.headers["x-attunet-confidence"])


def test_an_artefact_without_an_estimator_has_no_estimates(server, scan):
    response = server.post("/v1/models/small/segment?answer=summary", scan.read_bytes())
    assert response.json()["confidence"] is None
    assert "x-attunet-confidence" not in response.headers
