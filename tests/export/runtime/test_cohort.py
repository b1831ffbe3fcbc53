"""Many volumes: broken ones do not stop the others, finished ones are skipped, several processes share the work."""

import itertools
import threading

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import RunError
from attunet.export.runtime.cohort import AHEAD, Job, Work, predict_cohort
from attunet.export.runtime.segmenter import Segmenter
from attunet.sources.input import Input


@pytest.fixture(scope="module")
def segmenter(artefact):
    return Segmenter(artefact, num_threads=1)


@pytest.fixture
def jobs(tmp_path, write_scan) -> list[Job]:
    scans = [write_scan(tmp_path / f"in/{number}.nii.gz", (24, 20, 3), seed=number) for number in range(7)]
    return [Job(Input(path.name, (path,)), tmp_path / "out" / path.name) for path in scans]


def test_label_maps_are_those_of_single_predictions(segmenter, jobs):
    outcome = predict_cohort(Work(segmenter), jobs)
    assert (outcome.done, outcome.skipped, outcome.failed) == (7, 0, [])
    for job in jobs:
        np.testing.assert_array_equal(np.asarray(nib.load(job.write).dataobj), segmenter.predict_file(job.file).indices)


def test_broken_cases_are_listed_and_do_not_stop_the_others(log_lines: list[str], segmenter, jobs):
    jobs[1].file.write_bytes(jobs[1].file.read_bytes()[:200])
    jobs[4].file.unlink()
    outcome = predict_cohort(Work(segmenter), jobs)
    assert outcome.done == 5
    assert [path for path, _ in outcome.failed] == [jobs[1].file, jobs[4].file]
    assert all(str(path) in reason for path, reason in outcome.failed)
    assert sum(line.startswith("error: ") for line in log_lines) == 2
    assert "2 failed" in str(outcome)
    assert not jobs[1].write.exists()


def test_a_series_that_makes_no_dicom_seg_is_refused_before_anything_is_computed(
    segmenter, tmp_path, write_series, monkeypatch
):
    pytest.importorskip("highdicom")
    write_series(tmp_path / "bare", np.ones((24, 20, 3), np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]))
    monkeypatch.setattr(segmenter, "logits", lambda slices: pytest.fail("the network was asked"))
    outcome = predict_cohort(Work(segmenter), [Job(Input("bare", (tmp_path / "bare",)), tmp_path / "out/bare.dcm")])
    (reason,) = dict(outcome.failed).values()
    assert "DICOM SEG needs the element StudyInstanceUID, which the file lacks; write .nii.gz instead" in reason
    assert not (tmp_path / "out").exists()


def test_headers_that_amplify_are_refused_with_the_figure_before_anything_is_computed(
    segmenter, jobs, tmp_path, monkeypatch
):
    """Files of one or two kilobytes that would be gigapixels for the network do not hold up the others."""
    for number, shape, spacing in ((0, (1, 1, 300_000), 1.6), (1, (40, 40, 2), 400.0)):
        path = jobs[number].file
        nib.save(nib.Nifti2Image(np.zeros(shape, np.uint8), np.diag([-spacing, -spacing, 5, 1])), path)
        assert path.stat().st_size < 2000
    sizes, logits = [], segmenter.logits
    monkeypatch.setattr(segmenter, "logits", lambda slices: sizes.append(slices.size) or logits(slices))
    outcome = predict_cohort(Work(segmenter), jobs)
    assert outcome.done == 5
    reasons = dict(outcome.failed)
    for job, words in (
        (jobs[0], "300,000 slices of 64 × 64 pixels on the network's grid are 1,229 megapixels, at most 512"),
        (jobs[1], "a slice of 10000 × 10000 pixels on the network's grid are 100 megapixels, at most 16"),
    ):
        assert words in reasons[job.file]
    assert all("--max-megapixels" in reason for reason in reasons.values())
    assert max(sizes) <= 8 * 64 * 64, "nothing of the refused volumes was computed"
    assert predict_cohort(Work(segmenter, max_megapixels=100), [Job(jobs[0].input, tmp_path / "again.nii")]).failed


def test_a_label_map_that_cannot_be_written_is_one_failed_case(segmenter, jobs):
    jobs[0].write.parent.mkdir()
    blocked = jobs[3].write.parent / "file"
    blocked.write_text("in the way")
    jobs[3] = Job(jobs[3].input, blocked / "3.nii.gz")
    outcome = predict_cohort(Work(segmenter), jobs)
    assert (outcome.done, outcome.skipped, len(outcome.failed)) == (6, 0, 1)


def test_finished_cases_are_not_done_again(segmenter, jobs):
    predict_cohort(Work(segmenter), jobs[:3])
    stamps = [job.write.stat().st_mtime_ns for job in jobs[:3]]
    outcome = predict_cohort(Work(segmenter), jobs)
    assert (outcome.done, outcome.skipped) == (4, 3)
    assert [job.write.stat().st_mtime_ns for job in jobs[:3]] == stamps


def test_a_network_that_fails_on_one_volume_fails_that_case(segmenter, jobs, monkeypatch):
    calls, predict = itertools.count(1), segmenter.predict_prepared

    def failing(prepared, observers):
        if next(calls) == 2:
            raise RunError("provider: cpu failed while running")
        return predict(prepared)

    monkeypatch.setattr(segmenter, "predict_prepared", failing)
    outcome = predict_cohort(Work(segmenter), jobs)
    assert outcome.done == 6
    assert outcome.failed[0][0] == jobs[1].file


def test_shards_are_disjoint_and_whole(segmenter, jobs):
    outcomes = [predict_cohort(Work(segmenter), jobs, shard=(number, 3)) for number in range(3)]
    assert [outcome.done for outcome in outcomes] == [3, 2, 2]
    assert all(job.write.exists() for job in jobs)


def test_reading_runs_ahead_of_the_network_but_only_a_little(segmenter, jobs, monkeypatch):
    """Two volumes may wait for the network, whatever the number of cases: memory stays bounded."""
    read, wanted, ahead = threading.Semaphore(0), [0], []
    original, predict = Work.read, segmenter.predict_prepared

    def counted(work, job):
        wanted[0] += 1
        read.release()
        return original(work, job)

    def slow(prepared, observers):
        for _ in range(0 if ahead else 2):
            assert read.acquire(timeout=30), "the next volume is read while the network works"
        ahead.append(wanted[0] - len(ahead) - 1)
        return predict(prepared)

    monkeypatch.setattr(Work, "read", counted)
    monkeypatch.setattr(segmenter, "predict_prepared", slow)
    predict_cohort(Work(segmenter), jobs)
    assert max(ahead) <= AHEAD
