"""A folder of label maps is continued with the same model and scans alone."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.export.runtime.audit import Audit, CaseAudit
from attunet.export.runtime.cohort import Job, Work, predict_cohort
from attunet.export.runtime.segmenter import Segmenter
from attunet.privacy.audit_log import AuditLog, verify_audit
from attunet.sources.inputs import Input


@pytest.fixture(scope="module")
def segmenter(artefact: Path) -> Segmenter:
    return Segmenter(artefact, num_threads=1)


@pytest.fixture
def jobs(segmenter: Segmenter, tmp_path: Path, write_scan) -> list[Job]:
    scans = [write_scan(tmp_path / f"in/{number}.nii.gz", (24, 20, 3), seed=number) for number in range(3)]
    jobs = [Job(Input(path.name, (path,)), tmp_path / "out" / path.name) for path in scans]
    assert predict_cohort(Work(segmenter), jobs[:2]).done == 2
    return jobs


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
    refused(segmenter, jobs, "made of another scan than .*1.nii.gz, or of another --read: remove it")
    jobs[1].write.unlink()
    outcome = predict_cohort(Work(segmenter), jobs)
    assert (outcome.done, outcome.skipped) == (2, 1)
    assert nib.load(jobs[1].write).shape == (24, 20, 4)


def test_a_label_map_of_another_reading_is_refused(segmenter, jobs) -> None:
    jobs[1] = Job(Input("1", jobs[1].input.files, {"oblique": "drop"}), jobs[1].write)
    refused(segmenter, jobs, "or of another --read")


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
    maps[1].write_bytes(b"there")
    jobs = [Job(job.input, job.write, None, (path,)) for job, path in zip(jobs, maps, strict=True)]
    outcome = predict_cohort(Work(segmenter), jobs)
    assert (outcome.done, outcome.skipped) == (2, 1)
    np.testing.assert_array_equal(nib.load(jobs[0].write).dataobj, labels)


def test_a_case_that_the_log_does_not_have_is_not_finished(segmenter, jobs, tmp_path: Path) -> None:
    def audit() -> CaseAudit:
        return CaseAudit(Audit(AuditLog(tmp_path / "log.jsonl"), segmenter.sha256))

    outcome = predict_cohort(Work(segmenter, audit=audit()), jobs)
    assert (outcome.done, outcome.skipped) == (3, 0)
    outcome = predict_cohort(Work(segmenter, audit=audit()), jobs)
    assert (outcome.done, outcome.skipped) == (0, 3)
    assert verify_audit(tmp_path / "log.jsonl").records == 3
