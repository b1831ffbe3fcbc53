"""A source to a store: look at every case, settle the preprocessing, write a shard per case, rename when whole."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import attunet
from attunet.atomic import sha256, write_text
from attunet.cases import CaseFiles, Source
from attunet.checks import check_cases, training_ranges
from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import InputError, RunError
from attunet.findings import Finding
from attunet.layouts import find_cases
from attunet.over_cases import over_cases
from attunet.scan import CaseFacts, case_hashes, scan_case
from attunet.settle import Settled, settle
from attunet.shards import ShardTask, finished_shard, write_shard
from attunet.splits import Splits, deal_folds, read_splits
from attunet.store import CASES, MANIFEST, SCHEMA, SPLITS, Store, open_store, read_manifest
from attunet.unpacking import is_archive, unpack

Report = Callable[[str], object]
UNPACKED = "source"  # the folder in a store that holds what came in an archive


@dataclass(frozen=True)
class Survey:
    """What a look at every case of a source gave. Nothing has been written."""

    source: Source
    facts: tuple[CaseFacts, ...]
    settled: Settled
    findings: tuple[Finding, ...]


def prepare(
    source: Path | str,
    store: Path | str,
    config: DataConfig,
    *,
    layout: str = "auto",
    folds: int = 5,
    seed: int = 0,
    splits_file: Path | None = None,
    allow_unlabelled: bool = False,
    classes: tuple[Classes, int | None] | None = None,
    case_pattern: str | None = None,
    strict: bool = False,
    report: Report = print,
) -> Store:
    """Write the store of a source (a folder, or a zip archive of one) and open it.

    Built in `STORE.partial/` and renamed when whole; after a kill, the same call goes on with the cases that are not finished.
    An existing store of the same files and settings is left as it is. classes, case_pattern: as for `find_cases`.
    Raises InputError, before anything is written, where a file cannot be read, an image lacks its mask (unless `allow_unlabelled`),
    a check finds an error (with `strict`, a warning), or the store exists and is another.
    """
    source, store = Path(source), Path(store)
    if folds < 2:
        raise InputError(f"folds: must be at least 2, got {folds}")
    building = store.with_name(store.name + ".partial")
    given = {"layout": layout, "case_pattern": case_pattern, "classes": classes and [classes[0].to_json(), classes[1]]}
    request = {**given, "source": str(source.resolve()), "data": vars(config), "allow_unlabelled": allow_unlabelled}
    root, fresh = source, not building.exists()
    try:
        if is_archive(source) and not store.exists():
            root = building / UNPACKED
            request["archive_sha256"] = unpack(source, root, layout, report)
        elif is_archive(source):
            root = store / UNPACKED
            request["archive_sha256"] = sha256(source)
        found = find_cases(root, layout, classes=classes, case_pattern=case_pattern)
        _check_masks(found, allow_unlabelled)
        report(f"{source}: layout {found.layout} ({found.reason}), {len(found.cases)} cases")
        for note in found.notes:
            report(f"{source}: {note}")
        patients = sorted({c.patient for c in found.cases if c.label is not None})
        splits = read_splits(splits_file, patients) if splits_file else deal_folds(patients, folds, seed)
        request = json.loads(json.dumps({**request, "splits": splits.to_json()}))
        if store.exists():
            return _unchanged(store, found, request, report)
        seen = survey(found, config, report)
        _refuse(seen.findings, strict, report)
    except InputError:
        if fresh:
            shutil.rmtree(building, ignore_errors=True)  # what came out of an archive
        raise
    _say_settled(seen.settled, splits, folds, report)
    try:
        entries, cropped = _write_cases(seen, building, report)
        about = {"source": UNPACKED if root != source else str(root.resolve()), "request": request}
        _finish(store, building, seen, splits, entries, [*seen.findings, *cropped], about)
    except OSError as error:
        raise RunError(f"{building}: cannot be written: {error.strerror or error}") from None
    for finding in (*seen.findings, *cropped):
        report(finding.line())
    report(f"{store}: {len(entries)} cases, {sum(e['num_slices'] for e in entries)} slices")
    return open_store(store)


def survey(found: Source, config: DataConfig, report: Report) -> Survey:
    """Read every case once, settle the preprocessing and check what looks wrong. Raises InputError where a case cannot be used."""
    facts: list[CaseFacts] = []
    for fact in over_cases(partial(scan_case, frames=found.frames), found.cases):
        facts.append(fact)
        _progress("looked at", len(facts), len(found.cases), report)
    settled = settle(found, facts, config)
    findings = check_cases(facts, {c.case: c.patient for c in found.cases}, settled.mappings, settled.classes)
    return Survey(found, tuple(facts), settled, tuple(findings))


def _check_masks(found: Source, allow_unlabelled: bool) -> None:
    if not allow_unlabelled and (without := [c for c in found.cases if c.label is None]):
        count = f"{len(without)} of {len(found.cases)} images have none"
        raise InputError(f"{without[0].images[0]}: has no mask ({count}; allow with --allow-unlabelled)")


def _refuse(findings: Sequence[Finding], strict: bool, report: Report) -> None:
    """Findings that end the work: all are reported, the first is the error."""
    if fatal := [f for f in findings if strict or f.level == "error"]:
        for finding in findings:
            report(finding.line())
        first = fatal[0]
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise InputError(f"{first.case or 'data set'}: {first.text} [{first.rule}]{more}")


def _unchanged(store: Path, found: Source, request: Mapping[str, Any], report: Report) -> Store:
    """The existing store where it was made of the same files in the same way."""
    manifest = read_manifest(store)
    made_of = {
        e["case"]: ([f["sha256"] for f in e["image_files"]], e["label_file"] and e["label_file"]["sha256"]) for e in manifest["cases"]
    }
    if manifest["request"] == request and set(made_of) == {c.case for c in found.cases}:
        hashes = over_cases(case_hashes, found.cases)
        if all(made_of[c.case] == (list(images), label) for c, (images, label) in zip(found.cases, hashes, strict=True)):
            report(f"{store}: is up to date, nothing to do")
            return open_store(store)
    raise InputError(f"{store}: exists and was made of other files or settings; choose another name or remove it")


def _say_settled(settled: Settled, splits: Splits, folds: int, report: Report) -> None:
    spec = settled.spec
    report(
        f"spacing {'as it is' if spec.spacing_mm is None else f'{spec.spacing_mm:g} mm'}, window {spec.size[0]} × {spec.size[1]} pixels, "
        f"slice axis {spec.slice_axis} of {spec.orientation or 'the file'}, normalization {spec.normalization}, "
        f"classes {', '.join(settled.classes.names)}"
    )
    if len(splits.folds) < folds:
        report(f"{len(splits.folds)} folds, since there are no more labelled patients")


def _write_cases(seen: Survey, building: Path, report: Report) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Every case's shard, in parallel where there are many; those finished by an earlier, killed call are kept.

    Returns the manifest's entries, and a finding for every case whose labels the window cuts.
    """
    found, settled, folder = seen.source, seen.settled, building / CASES
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {p.name for p in folder.iterdir()} - {c.case for c in found.cases}:
        shutil.rmtree(folder / stale)
    tasks = [
        ShardTask(files, fact, settled.spec, settled.mappings.get(files.case), len(settled.classes), found.frames, folder / files.case)
        for files, fact in zip(found.cases, seen.facts, strict=True)
    ]
    finished = {task.files.case: entry for task in tasks if (entry := finished_shard(task))}
    if finished:
        report(f"{building}: {len(finished)} of {len(tasks)} cases are there already")
    for entry in over_cases(write_shard, [t for t in tasks if t.files.case not in finished]):
        finished[entry["case"]] = entry
        _progress("prepared", len(finished), len(tasks), report)
    entries = [finished[task.files.case] for task in tasks]
    cropped = [finding for entry in entries if (finding := _crop_finding(entry))]
    return [
        _with_files(entry, files, fact, found.root) for entry, files, fact in zip(entries, found.cases, seen.facts, strict=True)
    ], cropped


def _crop_finding(entry: Mapping[str, Any]) -> Finding | None:
    cut, total = entry["labelled_pixels_cut"], entry["labelled_pixels"]
    if not cut:
        return None
    return Finding(
        case=entry["case"],
        rule="window-cuts-labels",
        figure=cut / total,
        level="warning",
        text=f"the training window cuts off {cut} of {total} labelled pixels ({cut / total:.2%}); prediction never crops",
    )


def _with_files(entry: dict[str, Any], files: CaseFiles, fact: CaseFacts, root: Path) -> dict[str, Any]:
    """A case's manifest entry: what the shard knows, and where its files lie below the source."""

    def row(path: Path, sha256: str) -> dict[str, str]:
        return {"file": path.relative_to(root).as_posix(), "sha256": sha256}

    images = [row(path, sha256) for path, sha256 in zip(files.images, fact.image_sha256, strict=True)]
    label = row(files.label, fact.label_sha256) if files.label is not None and fact.label_sha256 else None
    return {**entry, "patient": files.patient, "labelled": label is not None, "image_files": images, "label_file": label}


def _finish(
    store: Path,
    building: Path,
    seen: Survey,
    splits: Splits,
    entries: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    about: Mapping[str, Any],
) -> None:
    manifest = {
        "schema": SCHEMA,
        "attunet": attunet.__version__,
        "name": store.name,
        "layout": seen.source.layout,
        "reason": seen.source.reason,
        **about,
        "frames": seen.source.frames,
        "classes": seen.settled.classes.to_json(),
        "spec": seen.settled.spec.to_json(),
        "data_config": vars(seen.settled.config),
        "ranges": training_ranges(seen.facts),
        "findings": [f.to_json() for f in findings],
        "cases": entries,
    }
    write_text(building / SPLITS, json.dumps(splits.to_json(), indent=1))
    write_text(building / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False))
    os.rename(building, store)


def _progress(what: str, number: int, total: int, report: Report) -> None:
    """A line where all are done, and about ten on the way where there are many."""
    if number == total or (total >= 50 and number * 10 // total > (number - 1) * 10 // total):
        report(f"{what} {number} of {total} cases")
