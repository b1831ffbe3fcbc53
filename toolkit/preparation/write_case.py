"""One case of a store on disk: image.npy, label.npy and, written last, a JSON file that marks them as complete."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.fields import Fields, JsonObject, read_json
from attunet.manifest import IMAGE, LABEL
from attunet.preparation.case_facts import PERCENTILES, CaseFacts, ChannelIntensity
from attunet.sources.case_files import CaseFiles, content_hash, without_names
from attunet.sources.read_case import MaskOptions, read_case
from attunet.system.atomic_files import joined_hash, name_in_errors, sha256
from attunet.volumes.geometry import place
from attunet.volumes.intensity import ChannelStatistics
from attunet.volumes.slices import VolumeSlices, resample_labels
from attunet.volumes.spec import PreprocessSpec

WRITTEN_BY = 4  # version of the writer; increase it when the same files and settings would give other arrays or entries
CASE = "case.json"


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Arguments of `write_shard`, which writes one case in a process of its own."""

    files: CaseFiles
    facts: CaseFacts
    spec: PreprocessSpec
    mapping: Mapping[int, int] | None  # label value -> class index; None if the case has no labels
    num_classes: int
    levels: tuple[int, ...]  # the greys that are classes in masks with smoothed edges
    choices: Choices
    folder: Path  # folder of the case in the store

    def key(self) -> dict[str, object]:
        """Return all inputs of the arrays and the entry; a shard with another key is written again."""
        return {
            "written_by": WRITTEN_BY,
            "image_sha256": list(self.facts.image_sha256),
            "label_sha256": list(self.facts.label_sha256),
            "spec": json.loads(json.dumps(self.spec.to_json())),
            "mask_values": list(self.files.label_values),
            "levels": list(self.levels),
            "choices": dict(self.choices),
            "label_mapping": self.mapping_json,
            "num_classes": self.num_classes,
        }

    @property
    def mapping_json(self) -> dict[str, int] | None:
        return None if self.mapping is None else {str(value): index for value, index in self.mapping.items()}


def finished_shard(task: ShardTask) -> Fields | None:
    """Return the manifest entry of a case that an earlier call finished with the same files and settings, else None."""
    try:
        at = read_json(task.folder / CASE)
        complete = all((task.folder / name).stat().st_size == size for name, size in at.inner("bytes").data.items())
        return at.inner("entry") if complete and at.data.get("key") == task.key() else None
    except (OSError, InputError):
        return None


def write_shard(task: ShardTask) -> Fields:
    """Prepare one case and write its arrays; returns its manifest entry without the file names."""
    files = task.files
    options = MaskOptions(files.label_values, task.levels, task.choices)
    with without_names(files.case, files.hidden):
        volume, indices = read_case(files.images, files.labels, task.mapping, options)
        _check_scanned(files, task.facts)
    prepared = VolumeSlices(volume, task.spec, task.spec.size)
    shutil.rmtree(task.folder, ignore_errors=True)  # remains of a killed call, with temporary files
    task.folder.mkdir()
    _save(task.folder / IMAGE, prepared[:].astype(np.float16))
    counts, pixels, cut = None, 0, 0
    if indices is not None:
        counts = np.bincount(indices.ravel(), minlength=task.num_classes)[: task.num_classes].tolist()
        labels = resample_labels(indices, prepared.grid, task.num_classes)
        window = place(labels, prepared.grid.window, prepared.grid.offset, 0)
        pixels = int(np.count_nonzero(labels))
        cut = pixels - int(np.count_nonzero(window))
        _save(task.folder / LABEL, window)
    sizes = {path.name: path.stat().st_size for path in sorted(task.folder.iterdir())}
    entry = {
        "case": files.case,
        "spec_sha256": task.spec.sha256,
        "num_slices": len(prepared),
        "native_shape": task.facts.native_shape,
        "affine": task.facts.affine,
        "unit": task.facts.unit,
        "image_sha256": joined_hash(task.facts.image_sha256),
        "label_sha256": joined_hash(task.facts.label_sha256) if task.facts.label_sha256 else None,
        "arrays_sha256": {name: sha256(task.folder / name) for name in sizes},
        "content_sha256": task.facts.content_sha256,
        "channel_sha256": list(task.facts.channel_sha256),
        "label_mapping": task.mapping_json,
        "intensity": list(map(_intensity, task.facts.channels(task.spec.num_channels), prepared.statistics)),
        "voxels_per_class": counts,
        "labelled_pixels": pixels,
        "labelled_pixels_cut": cut,
    }
    text = json.dumps({"key": task.key(), "bytes": sizes, "entry": entry}, allow_nan=False)
    partial = task.folder / f"{CASE}.partial"
    with name_in_errors(task.folder / CASE):
        partial.write_text(text, encoding="utf-8")
    partial.replace(task.folder / CASE)  # made durable with everything else, before the store gets its name
    return Fields(entry, files.case)


def _check_scanned(files: CaseFiles, facts: CaseFacts) -> None:
    """Raise InputError where a file is not the scanned one any more; hours may lie between the scan and the arrays."""
    hashes = (*facts.image_sha256, *facts.label_sha256)
    for path, scanned in zip((*files.images, *files.labels), hashes, strict=True):
        if content_hash(path) != scanned:
            raise InputError(f"{path}: was changed while its store was made: prepare it when nothing writes to it")


def _save(path: Path, array: np.ndarray) -> None:
    with name_in_errors(path), path.open("wb") as file:
        # numpy's own writing to a file does not give the reason of an error
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)


def _intensity(known: ChannelIntensity, used: ChannelStatistics) -> JsonObject:
    named = {f"{p:g}": value for p, value in zip(PERCENTILES, known["percentiles"], strict=True)}
    return {**known, "percentiles": named, "used": asdict(used)}
