"""Writing of a store: a shard for each case, then the manifest, and at last the final name of the folder."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from attunet.errors import Finding
from attunet.fields import Fields
from attunet.io.readers import stem_of
from attunet.manifest import CASES, MANIFEST, SPLITS
from attunet.preparation.survey import Survey, progress, refuse_errors
from attunet.preparation.write_case import ShardTask, finished_shard, write_shard
from attunet.sources.splits import Splits
from attunet.system.atomic_files import name_in_errors, write_file, write_text
from attunet.system.outputs import UNFINISHED, remove_mark
from attunet.system.workers import over_cases

logger = logging.getLogger(__name__)

WORK = "prepare"  # in the mark of an unfinished store


def build_store(
    store: Path,
    building: Path,
    seen: Survey,
    splits: Splits,
    head: Mapping[str, object],
    *,
    strict: bool,
    check: Callable[[], object],
) -> None:
    """Write the store in the folder `building` and rename it; cases finished by an earlier, killed call are kept.

    The manifest entries of cases are read from the shards one at a time, so that memory does not hold all of them. The
    other entries are in `head`. With `strict`, a window that cuts labels is an InputError. `check` is that of the
    store's lock, which another process may have taken over.

    Example:
        >>> store, building = Path("store"), Path("store.partial")  # doctest: +SKIP
        >>> build_store(store, building, survey, splits, {}, strict=False, check=lock.check)  # doctest: +SKIP
    """
    tasks = _tasks(seen, building / CASES)
    cut = _write_shards(tasks, building)
    refuse_errors(cut, strict)
    findings = [*seen.findings, *cut]
    check()
    write_text(building / SPLITS, json.dumps(splits.to_json(), indent=1))
    root = None if head["pseudonymised"] else seen.source.root
    head = {**head, "findings": [finding.to_json() for finding in findings]}
    entries = (_entry(task, root) for task in tasks)
    write_file(building / MANIFEST, lambda path: _write_manifest(path, head, entries))
    _remove_leftovers(building, {CASES, MANIFEST, SPLITS, UNFINISHED, str(head["source"])})
    os.sync()  # one call for all cases instead of one for each of thousands of small files
    check()
    os.rename(building, store)
    remove_mark(store, WORK)
    for finding in findings:
        finding.log(logger)


def _remove_leftovers(building: Path, wanted: Collection[str]) -> None:
    """Remove what a killed call of other settings left, such as an archive's files with names that this store hides."""
    for path in [path for path in building.iterdir() if path.name not in wanted]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _tasks(seen: Survey, folder: Path) -> list[ShardTask]:
    resolved, source = seen.resolved, seen.source
    return [
        ShardTask(
            files=files,
            facts=fact,
            spec=resolved.spec,
            mapping=resolved.mappings.get(files.case),
            num_classes=len(resolved.classes),
            levels=source.grey_levels,
            choices=source.choices,
            folder=folder / files.case,
        )
        for files, fact in zip(source.cases, seen.facts, strict=True)
    ]


def _write_shards(tasks: Sequence[ShardTask], building: Path) -> list[Finding]:
    """Write the arrays of all cases in parallel; returns a finding for each case whose labels the window cuts."""
    folder = building / CASES
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {p.name for p in folder.iterdir()} - {t.files.case for t in tasks}:
        shutil.rmtree(folder / stale)
    crops = {task.files.case: _crop_finding(task, entry) for task in tasks if (entry := finished_shard(task))}
    if crops:
        logger.info(f"{building}: {len(crops)} of {len(tasks)} cases are there already")
    unfinished = [task for task in tasks if task.files.case not in crops]
    for task, entry in zip(unfinished, over_cases(write_shard, unfinished), strict=True):
        crops[task.files.case] = _crop_finding(task, entry)
        progress("prepared", len(crops), len(tasks))
    return [finding for t in tasks if (finding := crops[t.files.case])]


def _crop_finding(task: ShardTask, entry: Fields) -> Finding | None:
    cut, total = entry.whole("labelled_pixels_cut"), entry.whole("labelled_pixels")
    if not cut:
        return None
    text = f"the training window cuts off {cut} of {total} labelled pixels ({cut / total:.2%}); prediction never crops"
    return Finding(task.files.case, "window-cuts-labels", cut / total, "warning", text)


def _entry(task: ShardTask, root: Path | None) -> dict[str, object]:
    """Return a case's entry of the manifest: that of its shard, and its files' paths below `root` (None: numbers)."""
    files, facts, entry = task.files, task.facts, finished_shard(task)
    assert entry is not None, task.folder

    def rows(kind: str, paths: Sequence[Path], hashes: Sequence[str]) -> list[dict[str, object]]:
        names = [f"{files.case}/{kind}-{n}{path.name.removeprefix(stem_of(path))}" for n, path in enumerate(paths, 1)]
        if root is not None:
            names = [path.relative_to(root).as_posix() for path in paths]
        return [{"file": name, "sha256": sha256} for name, sha256 in zip(names, hashes, strict=True)]

    labels = rows("mask", files.labels, facts.label_sha256)
    for label, value in zip(labels, files.label_values, strict=False):
        label["value"] = value
    return {
        **entry.data,
        "patient": files.patient,
        "labelled": bool(labels),
        "drawn": None if files.drawn is None else list(files.drawn),
        "image_files": rows("image", files.images, facts.image_sha256),
        "label_files": labels,
    }


def _write_manifest(path: Path, head: Mapping[str, object], entries: Iterator[Mapping[str, object]]) -> None:
    """Write one JSON object with a line per case."""
    with name_in_errors(path), path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}") + ',\n "cases": [')
        for number, entry in enumerate(entries):
            file.write((",\n  " if number else "\n  ") + json.dumps(entry, allow_nan=False))
        file.write("\n ]\n}\n")
