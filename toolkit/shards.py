"""One case of a store on disk: image.npy, label.npy and, last, the json that says that they are whole."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attunet.atomic import write_file, write_text
from attunet.cases import CaseFiles
from attunet.codings import to_indices
from attunet.geometry import place
from attunet.preprocess import prepare_training_slices, resample_labels
from attunet.scan import CaseFacts
from attunet.source_files import read_image, read_labels
from attunet.spec import PreprocessSpec
from attunet.store import IMAGE, LABEL

WRITTEN_BY = 1  # raised when the same files and settings would give other arrays
CASE = "case.json"


@dataclass(frozen=True)
class ShardTask:
    """What a process needs to write one case. mapping: label value -> class index, None where the case has no labels."""

    files: CaseFiles
    facts: CaseFacts
    spec: PreprocessSpec
    mapping: dict[int, int] | None
    num_classes: int
    frames: bool
    folder: Path

    def key(self) -> dict[str, Any]:
        """What the arrays depend on; a shard with another key is written again."""
        return {
            "written_by": WRITTEN_BY,
            "image_sha256": list(self.facts.image_sha256),
            "label_sha256": self.facts.label_sha256,
            "spec": json.loads(json.dumps(self.spec.to_json())),
            "label_mapping": None if self.mapping is None else {str(v): i for v, i in self.mapping.items()},
        }


def finished_shard(task: ShardTask) -> dict[str, Any] | None:
    """The manifest entry of a case that an earlier call finished with the same files and settings."""
    try:
        data = json.loads((task.folder / CASE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    entry: dict[str, Any] = data["entry"]
    return entry if data["key"] == task.key() else None


def write_shard(task: ShardTask) -> dict[str, Any]:
    """Prepare one case and write its arrays; returns its manifest entry without the file names."""
    volume = read_image(task.files.images, frames=task.frames)
    prepared = prepare_training_slices(volume, task.spec)
    shutil.rmtree(task.folder, ignore_errors=True)  # what a killed call left, temporary files included
    task.folder.mkdir()
    _save(task.folder / IMAGE, prepared.slices.astype(np.float16))
    counts, pixels, cut = None, 0, 0
    if task.files.label is not None and task.mapping is not None:
        values, _ = read_labels(task.files.label, volume, task.files.images[0])
        indices = to_indices(values, task.mapping, task.files.label)
        counts = np.bincount(indices.ravel(), minlength=task.num_classes)[: task.num_classes].tolist()
        labels = resample_labels(indices, prepared.grid, task.num_classes)
        window = place(labels, prepared.grid.window, prepared.grid.offset, 0)
        pixels = int(np.count_nonzero(labels))
        cut = pixels - int(np.count_nonzero(window))
        _save(task.folder / LABEL, window)
    entry = {
        "case": task.files.case,
        "num_slices": len(prepared.slices),
        "native_shape": task.facts.native_shape,
        "affine": task.facts.affine,
        "spacing": task.facts.spacing,
        "unit": task.facts.unit,
        "image_sha256": task.facts.joined_image_sha256,
        "label_sha256": task.facts.label_sha256,
        "content_sha256": task.facts.content_sha256,
        "label_mapping": task.key()["label_mapping"],
        "intensity": [{**known, "used": asdict(used)} for known, used in zip(task.facts.intensity, prepared.statistics, strict=True)],
        "voxels_per_class": counts,
        "labelled_pixels": pixels,
        "labelled_pixels_cut": cut,
    }
    write_text(task.folder / CASE, json.dumps({"key": task.key(), "entry": entry}, allow_nan=False))
    return entry


def _save(path: Path, array: np.ndarray) -> None:
    write_file(path, lambda temporary: np.save(temporary, array, allow_pickle=False))
