"""The audit log's record of a model with an estimator has its estimates; of one without, none."""

import json
from pathlib import Path

from attunet.export.runtime.origin import hash_of_files
from attunet.launch.commands.predict import predict
from attunet.privacy.audit_log import verify_audit


def test_predict_records_the_estimates(sure: Path, artefact: Path, write_scan, tmp_path: Path) -> None:
    log, scans = tmp_path / "log.jsonl", tmp_path / "scans"
    for number in range(2):
        write_scan(scans / f"Planted-{number}.nii.gz", seed=number)
    predict(sure, scans, tmp_path / "out", audit=log)
    predict(sure, scans / "Planted-0.nii.gz", tmp_path / "one.nii.gz", audit=log)
    predict(artefact, scans / "Planted-0.nii.gz", tmp_path / "other.nii.gz", audit=log)
    first, _, one, without = map(json.loads, log.read_text().splitlines())
    written = json.loads(next((tmp_path / "out").glob("Planted-0*.json")).read_text())
    assert first["confidence"] == one["confidence"]
    assert first["confidence"]["review"] == written["review"]
    assert set(first["confidence"]["organs"]) <= set(written["organs"])
    assert "confidence" not in without
    assert "Planted" not in log.read_text()
    assert verify_audit(log).records == 4


def test_swapped_channels_are_another_input(tmp_path: Path) -> None:
    """The names of a series' files do not count, nor does their order."""
    channels = [tmp_path / name for name in ("a.nii", "b.nii", "series", "renamed")]
    for channel in channels[:2]:
        channel.write_text(channel.name)
    for folder, names in zip(channels[2:], ("xy", "yz"), strict=True):
        folder.mkdir()
        for name, content in zip(names, "21" if names == "xy" else "12", strict=True):
            (folder / name).write_text(content)
    first, second, series, renamed = channels
    assert hash_of_files([first, second]) != hash_of_files([second, first])
    assert hash_of_files([series]) == hash_of_files([renamed])
