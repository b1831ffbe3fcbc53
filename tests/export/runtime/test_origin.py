"""A folder of label maps is continued with the same model and scans alone."""

import os
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.export.runtime.audit import Audit, CaseAudit
from attunet.export.runtime.cohort import Job, Work, predict_cohort
from attunet.export.runtime.origin import Origin, label_maps_of
from attunet.export.runtime.segmenter import Segmenter
from attunet.io.dicom.organ_codes import Code
from attunet.privacy.audit_log import AuditLog, verify_audit
from attunet.sources.input import Input


@pytest.fixture(scope="module")
def segmenter(artefact: Path) -> Segmenter:
    return Segmenter(artefact, num_threads=1)


@pytest.fixture
def jobs(segmenter: Segmenter, tmp_path: Path, write_scan) -> list[Job]:
    scans = [write_scan(tmp_path / f"in/{number}.nii.gz", (24, 20, 3), seed=number) for number in range(3)]
    jobs = [Job(Input(path.name, (path,)), tmp_path / "out" / path.name) for path in scans]
    assert predict_cohort(Work(segmenter), jobs[:2]).done == 2
    return jobs


def test_a_folder_that_goes_while_label_maps_are_listed_is_none_of_them(
    segmenter: Segmenter, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes of the same folder make and remove hidden ones for their cases."""
    out, scandir = jobs[0].write.parent, os.scandir
    (hidden := out / ".attunet-temporary-other").mkdir()

    class Listed:
        def __init__(self, path: str | Path) -> None:
            with scandir(path) as entries:
                self._left = list(entries)
            if hidden.exists():
                hidden.rmdir()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Self:
            return self

        def __next__(self) -> os.DirEntry[str]:
            if not self._left:
                raise StopIteration
            return self._left.pop()

    monkeypatch.setattr(os, "scandir", Listed)
    assert list(label_maps_of(out, segmenter.sha256)) == [job.write for job in jobs[:2]]


def test_a_scan_that_changes_while_it_is_read_is_neither_of_both(
    segmenter: Segmenter, jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its label map would have the origin, and the record in the audit log, of voxels that were not segmented."""
    read, scan = Input.read, jobs[2].input.files[0]

    def exchanged(self: Input, *arguments: object) -> object:
        scan.write_bytes(jobs[0].input.files[0].read_bytes())
        return read(self, *arguments)

    monkeypatch.setattr(Input, "read", exchanged)
    log = AuditLog(tmp_path / "log.jsonl")
    outcome = predict_cohort(Work(segmenter, audit=CaseAudit(Audit(log, segmenter.sha256))), jobs[2:])
    ((_, reason),) = outcome.failed
    assert reason == f"{scan}: was changed while it was read: call again when it is whole"
    assert not jobs[2].write.exists()
    assert [record["status"] for record in log.records()] == ["failed"]


def contents(jobs: list[Job]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(jobs[0].write.parent.rglob("*"))}


def refused(segmenter: Segmenter, jobs: list[Job], words: str) -> None:
    before = contents(jobs)
    with pytest.raises(InputError, match=words) as error:
        predict_cohort(Work(segmenter), jobs)
    assert str(error.value).startswith(str(jobs[1].write))
    assert contents(jobs) == before


def test_a_label_map_of_another_model_is_refused(segmenter, jobs, save_artefact) -> None:
    jobs[0].write.unlink()
    refused(Segmenter(save_artefact("other.onnx", name="other"), num_threads=1), jobs, "made by another model")


def test_a_label_map_of_another_scan_of_that_name_is_refused(segmenter, jobs, write_scan) -> None:
    write_scan(jobs[1].file, (24, 20, 4), seed=9)
    refused(segmenter, jobs, "made of another scan than .*1.nii.gz: move it")
    jobs[1].write.unlink()
    outcome = predict_cohort(Work(segmenter), jobs)
    assert (outcome.done, outcome.skipped) == (2, 1)
    assert nib.load(jobs[1].write).shape == (24, 20, 4)


@pytest.mark.parametrize(
    "reading", [("dicom-bits", "allocated"), ("dicom-series", "3"), ("exif-orientation", "ignore")]
)
def test_a_label_map_of_another_reading_is_refused(
    segmenter, jobs, tmp_path: Path, write_series, reading: tuple[str, str]
) -> None:
    """Of some choices nothing is noted; they are of scans of their format alone."""
    data, files = np.ones((24, 20, 3), np.int16), tmp_path / "in/p.png"
    if reading[0].startswith("dicom"):
        write_series(tmp_path / "in/p", data, np.diag([-2.0, -2.0, 5.0, 1.0]))
        files = tmp_path / "in/p"
    else:
        pytest.importorskip("PIL.Image").fromarray(data[..., 0].astype(np.uint8)).save(files)
    jobs = [*jobs[:2], Job(Input("p", (files,)), tmp_path / f"out/p.{'png' if files.is_file() else 'nii.gz'}")]
    assert predict_cohort(Work(segmenter), jobs).done == 1
    jobs = [Job(Input(job.input.name, job.input.files, dict([reading])), job.write) for job in jobs]
    assert predict_cohort(Work(segmenter), jobs[:2]).skipped == 2
    with pytest.raises(InputError, match=r"p\..*: was made by another --read or --series: move it"):
        predict_cohort(Work(segmenter), jobs)


def test_words_of_a_series_are_in_no_hidden_file() -> None:
    first, second = (
        Origin("model", "scan", {"dicom-series": text, "dicom-bits": "stored"}).to_json()
        for text in ("t1 PLANTED", "t2")
    )
    assert first != second
    assert "PLANTED" not in str(first)
    assert "stored" in str(first)


def test_a_reading_that_a_scan_does_not_need_changes_nothing(segmenter, jobs) -> None:
    """The line that refuses one scan names a reading, which then is an option for the whole folder."""
    image = nib.load(jobs[2].file)
    image.header.set_sform(np.diag([-3.0, -3.0, 5.0, 1.0]), code=1)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), jobs[2].file)
    outcome = predict_cohort(Work(segmenter), jobs)
    assert (outcome.done, outcome.skipped, len(outcome.failed)) == (0, 2, 1)
    assert "--read nifti-geometry=sform" in outcome.failed[0][1]

    def read_by(value: str) -> list[Job]:
        return [Job(Input(job.input.name, job.input.files, {"nifti-geometry": value}), job.write) for job in jobs]

    for done in (1, 0):
        outcome = predict_cohort(Work(segmenter), read_by("sform"))
        assert (outcome.done, outcome.skipped, outcome.failed) == (done, 3 - done, [])
    with pytest.raises(InputError, match=r"2.nii.gz: was made by another --read"):
        predict_cohort(Work(segmenter), read_by("pixdim"))


def test_files_beside_the_slices_are_no_part_of_the_scan(segmenter, tmp_path: Path, write_series) -> None:
    folder = tmp_path / "series"
    write_series(folder, np.ones((24, 20, 3), np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]))
    jobs = [Job(Input("series", (folder,)), tmp_path / "out/series.nii.gz")]
    assert predict_cohort(Work(segmenter), jobs).done == 1
    for name in ("README.txt", ".DS_Store", "Thumbs.db"):
        (folder / name).write_text("no slice")
    (folder / "deeper").mkdir()
    (folder / "deeper/notes.txt").write_text("no slice")
    assert predict_cohort(Work(segmenter), jobs).skipped == 1
    next(folder.glob("*.dcm")).unlink()
    with pytest.raises(InputError, match="was made of another scan"):
        predict_cohort(Work(segmenter), jobs)


def test_a_dicom_seg_with_other_codes_is_refused(segmenter, tmp_path: Path, write_series) -> None:
    pytest.importorskip("highdicom")
    uids = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(tmp_path / "series", np.ones((24, 20, 3), np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]), **uids)

    def jobs(ending: str, value: str) -> list[Job]:
        codes = {"liver": Code(value, "99X", "Liver")}
        return [Job(Input("series", (tmp_path / "series",)), tmp_path / f"out/series{ending}", codes)]

    for ending in (".dcm", ".nii.gz"):
        for done in (1, 0):
            assert predict_cohort(Work(segmenter), jobs(ending, "A")).done == done
    assert predict_cohort(Work(segmenter), jobs(".nii.gz", "B")).skipped == 1
    with pytest.raises(InputError, match=r"series.dcm: was made with other --codes: move it"):
        predict_cohort(Work(segmenter), jobs(".dcm", "B"))


@pytest.mark.parametrize("kind", ["file", "folder", "damaged"])
def test_a_label_map_of_unknown_origin_is_refused(segmenter, jobs, kind: str) -> None:
    origin = jobs[1].write.with_name(".1.nii.gz.json")
    if kind == "damaged":
        origin.write_text("{")
        with pytest.raises(InputError, match="cannot be read as JSON"):
            predict_cohort(Work(segmenter), jobs)
        return
    origin.unlink()
    if kind == "folder":
        jobs[1].write.unlink()
        jobs[1].write.mkdir()
        with pytest.raises(InputError, match="no file says which model"):
            predict_cohort(Work(segmenter), jobs)
        return
    refused(segmenter, jobs, "no file says which model and scan it is of")


def test_a_case_without_a_requested_map_is_not_finished(segmenter, jobs) -> None:
    labels = np.asarray(nib.load(jobs[0].write).dataobj)
    maps = [jobs[number].write.with_name(f"{number}-map.nii.gz") for number in range(3)]
    jobs = [Job(job.input, job.write, None, (path,)) for job, path in zip(jobs, maps, strict=True)]

    def write_map(_: object, __: object, path: Path) -> None:
        path.with_name(f"{path.name[0]}-map.nii.gz").write_bytes(path.name.encode())

    work = Work(segmenter, write_map)
    maps[1].write_bytes(b"of something else")
    with pytest.raises(InputError, match=r"1-map\.nii\.gz: is there, and was not written with 1\.nii\.gz: move it"):
        predict_cohort(work, jobs)
    maps[1].unlink()
    for changed, done in ((None, 3), (None, 0), (maps[1], 1)):
        if changed:
            changed.write_bytes(b"changed")
        outcome = predict_cohort(work, jobs)
        assert (outcome.done, outcome.skipped) == (done, 3 - done)
        assert [path.read_bytes() for path in maps] == [job.write.name.encode() for job in jobs]
    np.testing.assert_array_equal(nib.load(jobs[0].write).dataobj, labels)


def test_a_case_that_the_log_does_not_have_is_not_finished(segmenter, jobs, tmp_path: Path) -> None:
    def audit() -> CaseAudit:
        return CaseAudit(Audit(AuditLog(tmp_path / "log.jsonl"), segmenter.sha256))

    outcome = predict_cohort(Work(segmenter, audit=audit()), jobs)
    assert (outcome.done, outcome.skipped) == (3, 0)
    outcome = predict_cohort(Work(segmenter, audit=audit()), jobs)
    assert (outcome.done, outcome.skipped) == (0, 3)
    assert verify_audit(tmp_path / "log.jsonl").records == 3
