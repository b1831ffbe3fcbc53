"""Estimates beside label maps: the features that were learned from, whole files or none, and no names."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.confidence.estimator import Estimator, learn
from attunet.confidence.features import softmax
from attunet.errors import InputError
from attunet.evaluate_case import observe_case, read_labelled_case
from attunet.export.runtime import cohort, confidence
from attunet.export.runtime.case_output import confidence_file
from attunet.export.runtime.cohort import Job, Work, predict_cohort
from attunet.export.runtime.confidence import check_confidence, write_tables
from attunet.export.runtime.observed_case import ConfidenceOptions, ObservedCase
from attunet.export.runtime.segmenter import Segmenter
from attunet.io.readers import read_volume
from attunet.sources.inputs import find_inputs
from attunet.store import Store
from attunet.system import lock
from attunet.volumes.model import NetworkModel


@pytest.fixture
def scans(write_scan, tmp_path: Path) -> Path:
    for number in range(3):
        write_scan(tmp_path / f"scans/scan-{number}.nii.gz", seed=number)
    return tmp_path / "scans"


def jobs_of(scans: Path, out: Path) -> list[Job]:
    return [Job(one, out / f"{one.name}.nii.gz") for one in find_inputs(scans)]


def test_features_are_the_same_bits_where_they_are_learned_and_where_they_are_used(
    sure: Path, small_store: Store
) -> None:
    segmenter = Segmenter(sure, num_threads=1)
    case = read_labelled_case(small_store, small_store.cases[0].name)
    model = NetworkModel("same", segmenter.spec, segmenter.classes, segmenter.logits, ranges=small_store.ranges)
    learned = observe_case(model, case)
    used = []
    for prepared in (segmenter.prepare(case.volume), segmenter.prepare(case.volume, lazily=True)):
        observed = ObservedCase(segmenter, segmenter.estimator, case.volume, prepared)
        segmenter.predict_prepared(prepared, observers=observed.observers)
        assert observed._features is not None
        used.append(observed._features.features(learned.features.distance))
    assert used[0] == used[1] == learned.features
    assert any(organ is not None for organ in learned.features.organs)


def test_a_folder_has_a_record_for_each_case_and_the_tables(attunet, sure: Path, scans: Path, tmp_path: Path) -> None:
    done = attunet("predict", sure, scans, tmp_path / "out", "--uncertainty")
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "out/confidence.json").read_text())
    assert set(content["cases"]) == {"scan-0", "scan-1", "scan-2"}
    assert content["learned"]["num_patients"] == 12
    record = json.loads((tmp_path / "out/scan-0-confidence.json").read_text())
    assert record == content["cases"]["scan-0"]
    assert set(record["organs"]) == {"liver", "right kidney", "left kidney", "spleen"}
    for organ in record["organs"].values():
        if organ["dice"] is not None:
            assert 0 <= organ["low"] <= organ["dice"] <= organ["high"] <= 1
    rows = list(csv.reader((tmp_path / "out/confidence.csv").open()))
    assert rows[0][:3] == ["case", "review", "liver dice"]
    assert {row[0] for row in rows[1:]} == set(content["cases"])
    marked = sum(case["review"] for case in content["cases"].values())
    assert f"{marked} cases to be looked at" in done.out
    assert [case["review"] for case in content["cases"].values()] == [True] * marked + [False] * (3 - marked)
    image = nib.load(tmp_path / "out/scan-0-uncertainty.nii.gz")
    scan = nib.load(scans / "scan-0.nii.gz")
    assert image.shape == scan.shape
    assert np.allclose(image.affine, scan.affine)
    assert 0 <= np.asarray(image.dataobj).min() < np.asarray(image.dataobj).max() <= 1


def test_labels_are_the_same_with_and_without(attunet, sure: Path, scans: Path, tmp_path: Path) -> None:
    for name, options in (("with", ("--uncertainty",)), ("without", ("--no-confidence",))):
        assert attunet("predict", sure, scans, tmp_path / name, *options).code == 0
    for file in (tmp_path / "without").glob("[!.]*"):
        assert file.read_bytes() == (tmp_path / "with" / file.name).read_bytes()
    assert len(list((tmp_path / "without").glob("scan-*"))) == 3


def test_the_map_is_the_entropy_with_the_artefacts_temperature(sure: Path, scans: Path, estimator: Estimator) -> None:
    segmenter = Segmenter(sure, num_threads=1)
    assert estimator.temperature != 1
    volume = read_volume(scans / "scan-0.nii.gz")
    prepared = segmenter.prepare(volume)
    observed = ObservedCase(segmenter, segmenter.estimator, volume, prepared, ConfidenceOptions(uncertainty=True))
    segmenter.predict_prepared(prepared, observers=observed.observers)
    assert observed._map is not None
    (top, left), (height, width) = prepared.grid.offset, prepared.grid.resampled_shape
    logits = segmenter.logits(prepared.batch(0, 4))[:, :, top : top + height, left : left + width]
    p = softmax(logits, estimator.temperature)
    expected = -(p * np.log(p)).sum(axis=1) / np.log(5)
    got = observed._map.volume()  # LPS slices of a scan whose axes run to the left and to the back: rows are Y
    turned = got.transpose(2, 1, 0)
    assert any(one == pytest.approx(expected, abs=1e-3) for one in (turned, turned[:, ::-1]))


def test_the_label_map_says_which_organs_are_missing(sure: Path, scans: Path) -> None:
    """Few voxels on the network's grid may be none on the scan's own, and the other way round."""
    segmenter = Segmenter(sure, num_threads=1)
    volume = read_volume(scans / "scan-0.nii.gz")
    prepared = segmenter.prepare(volume)
    observed = ObservedCase(segmenter, segmenter.estimator, volume, prepared)
    indices = segmenter.predict_prepared(prepared, observers=observed.observers)
    assert set(np.unique(indices)) == {0, 1, 2, 3, 4}
    without_liver = observed.confidence(np.where(indices == 1, 0, indices).astype(np.uint8), ())
    assert without_liver is not None
    assert without_liver.organs["liver"].dice is None
    assert "liver: not in the label map, and no case learned from lacked it" in without_liver.reasons
    assert without_liver.organs["spleen"].dice is not None
    nothing_on_its_grid = ObservedCase(segmenter, segmenter.estimator, volume, prepared)
    on_scan_alone = nothing_on_its_grid.confidence(indices, ())
    assert on_scan_alone is not None
    assert on_scan_alone.organs["liver"].dice is None
    assert on_scan_alone.organs["liver"].review
    assert "liver: cannot tell: too small on the network's grid" in on_scan_alone.reasons


def test_one_scan_has_its_record_beside_the_label_map(attunet, sure: Path, scans: Path, tmp_path: Path) -> None:
    done = attunet("predict", sure, scans / "scan-0.nii.gz", tmp_path / "labels.nii.gz", "--review-below", 0.999)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "labels-confidence.json").read_text())
    assert record["threshold"] == 0.999
    assert record["review"]
    assert "estimated Dice" in done.out
    assert not (tmp_path / "confidence.json").exists()


def test_in_python_a_prediction_has_its_estimates(
    attunet, sure: Path, artefact: Path, scans: Path, tmp_path: Path
) -> None:
    confidence = Segmenter(sure, num_threads=1).predict_file(scans / "scan-0.nii.gz").confidence
    assert confidence is not None
    assert attunet("predict", sure, scans / "scan-0.nii.gz", tmp_path / "labels.nii.gz").code == 0
    record = json.loads((tmp_path / "labels-confidence.json").read_text())
    assert {name: organ.review for name, organ in confidence.organs.items()} == {
        n: o["review"] for n, o in record["organs"].items()
    }
    assert Segmenter(artefact, num_threads=1).predict_file(scans / "scan-0.nii.gz").confidence is None


def test_a_case_is_finished_when_all_of_it_is_there(
    sure: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter, out = Segmenter(sure, num_threads=1), tmp_path / "out"
    jobs, original = jobs_of(scans, out), cohort.write_labels

    def failing(path: Path, *rest: object, **more: object) -> None:
        if path.name == "scan-1.nii.gz":
            raise OSError("no space left")
        original(path, *rest, **more)

    monkeypatch.setattr(cohort, "write_labels", failing)
    assert predict_cohort(Work(segmenter, confidence=ConfidenceOptions()), jobs).done == 2
    write_tables(out, segmenter)
    # Not what has no label map
    assert set(json.loads((out / "confidence.json").read_text())["cases"]) == {"scan-0", "scan-2"}
    monkeypatch.setattr(cohort, "write_labels", original)
    before = confidence_file(jobs[0].write).stat().st_mtime_ns
    outcome = predict_cohort(Work(segmenter, confidence=ConfidenceOptions()), jobs)
    assert (outcome.done, outcome.skipped) == (1, 2)
    assert confidence_file(jobs[0].write).stat().st_mtime_ns == before
    write_tables(out, segmenter)
    assert len(json.loads((out / "confidence.json").read_text())["cases"]) == 3


TABLES_OF_ANOTHER = """
import logging, sys
from pathlib import Path
from attunet.export.runtime.confidence import write_tables
from attunet.export.runtime.segmenter import Segmenter
logging.basicConfig(level="INFO", stream=sys.stdout)
write_tables(Path(sys.argv[2]), Segmenter(sys.argv[1], num_threads=1))
print("written", flush=True)
"""


def test_the_tables_have_the_cases_of_all_processes_that_end_together(
    sure: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finishes a case and writes its tables while this one has listed, and has not written yet."""
    segmenter, out = Segmenter(sure, num_threads=1), tmp_path / "out"
    work = Work(segmenter, confidence=ConfidenceOptions())
    first, last, *_ = jobs_of(scans, out)
    predict_cohort(work, [first])
    original, others = confidence.write_text, []
    monkeypatch.setattr(lock, "BEAT_S", 0.1)

    def write_text(path: Path, text: str) -> None:
        if not others:
            predict_cohort(work, [last])
            code = [sys.executable, "-c", TABLES_OF_ANOTHER, str(sure), str(out)]
            others.append(subprocess.Popen(code, stdout=subprocess.PIPE, text=True))
            others[0].stdout.readline()  # it has written, or waits
        original(path, text)

    monkeypatch.setattr(confidence, "write_text", write_text)
    write_tables(out, segmenter)
    (other,) = others
    assert other.communicate(timeout=60)[0].endswith("written\n")
    assert set(json.loads((out / "confidence.json").read_text())["cases"]) == {"scan-0", "scan-1"}
    assert len((out / "confidence.csv").read_text().splitlines()) == 3
    assert not list(tmp_path.glob(".*.lock"))


@pytest.mark.slow
def test_a_kill_leaves_no_half_file_and_the_same_call_continues(
    sure: Path, scans: Path, write_scan, tmp_path: Path
) -> None:
    for number in range(3, 30):
        write_scan(scans / f"scan-{number}.nii.gz", seed=number)
    out = tmp_path / "out"
    call = [sys.executable, "-m", "attunet.launch.cli", "predict", str(sure), str(scans), str(out), "--uncertainty"]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("scan-*[0-9].nii.gz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for file in out.glob("scan-*.json"):
        json.loads(file.read_text())
    for labels in out.glob("scan-*[0-9].nii.gz"):
        assert confidence_file(labels).exists()
        assert np.isfinite(np.asarray(nib.load(str(labels).replace(".nii", "-uncertainty.nii")).dataobj)).all()
    assert subprocess.run(call, capture_output=True, timeout=120, check=False).returncode == 0
    assert len(json.loads((out / "confidence.json").read_text())["cases"]) == 30


def test_a_model_without_an_estimator_says_how_to_get_one(attunet, artefact: Path, scans: Path, tmp_path: Path) -> None:
    done = attunet("predict", artefact, scans, tmp_path / "out", "--confidence")
    assert done.code == 2
    assert "attunet export RUN OUT.onnx --confidence DIR" in done.err
    assert not (tmp_path / "out").exists()
    assert attunet("predict", artefact, scans, tmp_path / "out", "--uncertainty").code == 0  # needs no estimator
    assert not list((tmp_path / "out").glob("*confidence*"))
    assert "not learned" in attunet("inspect", artefact).out


def test_whole_artefacts_and_runs_are_refused(sure: Path) -> None:
    segmenter = Segmenter(sure, num_threads=1)
    segmenter.metadata = dataclasses.replace(segmenter.metadata, whole=True)
    with pytest.raises(InputError, match="without --whole"):
        check_confidence(segmenter, sure, ConfidenceOptions(uncertainty=True), required=False)
    run = NetworkModel("run", segmenter.spec, segmenter.classes, segmenter.logits)
    with pytest.raises(InputError, match="is a run"):
        check_confidence(run, Path("run"), ConfidenceOptions(), required=True)


def test_few_patients_say_that_they_cannot_tell(
    attunet, save_artefact, tmp_path: Path, scans: Path, learned_cases: Callable[..., list]
) -> None:
    path = save_artefact(confidence=learn(learned_cases(6)))
    done = attunet("predict", path, scans, tmp_path / "out")
    assert done.code == 0, done.err
    assert "look at all cases, it cannot tell: it was learned on 6 patients, at least 10 are needed" in done.out
    assert "0 cases to be looked at" not in done.out
    rows = list(csv.DictReader((tmp_path / "out/confidence.csv").read_text().splitlines()))
    assert {row["review"] for row in rows} == {"cannot tell"}
    record = json.loads((tmp_path / "out/scan-0-confidence.json").read_text())
    assert (record["organs"], record["review"]) == ({}, False)
    assert "cannot tell" in attunet("inspect", path).out


def test_a_scan_unlike_the_trainings_is_marked(
    save_artefact, estimator: Estimator, scans: Path, small_store: Store, tmp_path: Path, attunet
) -> None:
    strange = save_artefact(confidence=estimator, ranges=small_store.ranges)
    image, far = nib.load(scans / "scan-0.nii.gz"), tmp_path / "far.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 10, 1])), far)
    assert attunet("predict", strange, far, tmp_path / "labels.nii.gz", "--review-below", 0).code == 0
    record = json.loads((tmp_path / "labels-confidence.json").read_text())
    assert record["review"]
    assert "training had" in record["reasons"][0]


def test_names_of_classes_are_no_formulas_and_records_have_no_path(sure: Path, scans: Path, tmp_path: Path) -> None:
    segmenter = Segmenter(sure, num_threads=1)
    names = ("background", "=HYPERLINK(1)", "a\x1b[31m\nb", "@c", "d")
    segmenter.classes = Classes(names, segmenter.classes.values)
    secret = tmp_path / "Planted-Patient"
    jobs = [Job(one, secret / f"=case-{n}.nii.gz") for n, one in enumerate(find_inputs(scans))]
    predict_cohort(Work(segmenter, confidence=ConfidenceOptions(threshold=0.999)), jobs)
    write_tables(secret, segmenter)
    text = (secret / "confidence.csv").read_text()
    cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+-@" and cell]
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4
    for file in (secret / "confidence.json", *(confidence_file(job.write) for job in jobs)):
        assert not [text for text in ("Planted", "scan-", "\x1b") if text in file.read_text()]
