"""The audit log's record of a model with an estimator has its estimates; of one without, none."""

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.confidence.estimator import Estimator
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.launch.commands.predict import AuditOptions, predict
from attunet.system.audit_log import verify_audit


@pytest.fixture
def sure(tmp_path: Path, graph: bytes, metadata: Artefact, estimator: Estimator) -> Path:
    path = tmp_path / "sure.onnx"
    path.write_bytes(write_artefact(graph, dataclasses.replace(metadata, confidence=estimator)))
    return path


def records(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    for number in range(2):
        data = np.random.default_rng(number).normal(300, 60, (40, 48, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(data, np.diag([-1.6, -1.6, 5, 1])), tmp_path / f"scans/Planted-{number}.nii.gz")
    return tmp_path / "scans"


def test_predict_records_the_estimates(sure: Path, artefact: Path, scans: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    predict(sure, scans, tmp_path / "out", audit=AuditOptions(log))
    predict(sure, scans / "Planted-0.nii.gz", tmp_path / "one.nii.gz", audit=AuditOptions(log))
    predict(artefact, scans / "Planted-0.nii.gz", tmp_path / "other.nii.gz", audit=AuditOptions(log))
    first, _, one, without = records(log)
    written = json.loads(next((tmp_path / "out").glob("Planted-0*.json")).read_text())
    assert first["confidence"] == one["confidence"]
    assert first["confidence"]["review"] == written["review"]  # type: ignore[index]
    assert set(first["confidence"]["organs"]) <= set(written["organs"])  # type: ignore[index]
    assert "confidence" not in without
    assert "Planted" not in log.read_text()
    assert verify_audit(log).records == 4
