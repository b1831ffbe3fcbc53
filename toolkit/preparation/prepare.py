"""A source to a store: look at every case, settle the preprocessing, write a shard per case, rename when whole."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import InputError, RunError
from attunet.preparation.case_facts import case_hashes
from attunet.preparation.checks import same_scans, training_ranges
from attunet.preparation.resolve_data import Settled
from attunet.preparation.survey import Survey, refuse_errors, survey
from attunet.preparation.write_store import build_store
from attunet.sources.case_files import Source
from attunet.sources.find_cases import find_cases
from attunet.sources.unpack import is_archive, unpack
from attunet.splits import Splits, deal_folds, read_splits
from attunet.store import SCHEMA, Store, open_store, read_manifest
from attunet.system.atomic_files import sha256
from attunet.system.workers import over_cases
from attunet.version import __version__

logger = logging.getLogger(__name__)

UNPACKED = "source"  # the folder in a store that holds what came in an archive


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
    fresh = not building.exists()
    try:
        root, archive = _folder_of(source, store, building, layout)
        found = find_cases(root, layout, classes=classes, case_pattern=case_pattern)
        _check_masks(found, allow_unlabelled)
        for line in (f"layout {found.layout} ({found.reason}), {len(found.cases)} cases", *found.notes):
            logger.info(f"{source}: {line}")
        patients = sorted({c.patient for c in found.cases if c.labels})
        own = read_splits(splits_file, patients) if splits_file else None
        given = {"layout": layout, "case_pattern": case_pattern, "classes": classes and [classes[0].to_json(), classes[1]]}
        request = {**given, "data": vars(config), "splits": own.to_json() if own else [folds, seed], "archive_sha256": archive}
        if store.exists():
            return _unchanged(store, found, request)
        seen = survey(found, config, splits=own, building=building)
        refuse_errors(seen.findings, strict)
        splits = own or deal_folds(patients, folds, seed, _sharing(seen))
        _say_settled(seen.settled, config, splits, folds)
        head = _head(seen, store.name, UNPACKED if archive else str(root.resolve()), request)
        findings = build_store(store, building, seen, splits, head, strict=strict)
    except InputError:
        if fresh:
            shutil.rmtree(building, ignore_errors=True)  # what came out of an archive
        raise
    except OSError as error:
        raise RunError(f"{building}: cannot be written: {error.strerror or error}") from None
    for finding in findings:
        finding.log(logger)
    del seen, found, head  # the facts of a hundred thousand cases, before the store is read
    opened = open_store(store)
    logger.info(f"{store}: {len(opened.cases)} cases, {sum(c.num_slices for c in opened.cases)} slices")
    return opened


def _folder_of(source: Path, store: Path, building: Path, layout: str) -> tuple[Path, str | None]:
    """The folder with the source's files, and the SHA-256 of the archive that they came in; unpacked files become part of the store."""
    if not is_archive(source):
        return source, None
    if store.exists():
        return store / UNPACKED, sha256(source)
    return building / UNPACKED, unpack(source, building / UNPACKED, layout)


def _check_masks(found: Source, allow_unlabelled: bool) -> None:
    if not allow_unlabelled and (without := [c for c in found.cases if not c.labels]):
        count = f"{len(without)} of {len(found.cases)} images have none"
        raise InputError(f"{without[0].images[0]}: has no mask ({count}; allow with --allow-unlabelled)")


def _sharing(seen: Survey) -> list[set[str]]:
    """Patients of which one has a scan that another has too."""
    patients = {case.case: case.patient for case in seen.source.cases if case.labels}
    shared = ({patients[case] for case in cases if case in patients} for cases in same_scans(seen.facts))
    return [group for group in shared if len(group) > 1]


def _unchanged(store: Path, found: Source, request: Mapping[str, Any]) -> Store:
    """The existing store where it was made of the same files in the same way."""
    manifest = read_manifest(store)
    made_of = {
        entry["case"]: tuple(tuple(file["sha256"] for file in rows) for rows in (entry["image_files"], entry["label_files"]))
        for entry in manifest["cases"]
    }
    if manifest["request"] == json.loads(json.dumps(request)) and set(made_of) == {c.case for c in found.cases}:
        hashes = over_cases(case_hashes, found.cases)
        if all(made_of[case.case] == found_now for case, found_now in zip(found.cases, hashes, strict=True)):
            logger.info(f"{store}: is up to date, nothing to do")
            return open_store(store)
    raise InputError(f"{store}: exists and was made of other files or settings; choose another name or remove it")


def _head(seen: Survey, name: str, source: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest without its cases."""
    return {
        "schema": SCHEMA,
        "attunet": __version__,
        "name": name,
        "layout": seen.source.layout,
        "reason": seen.source.reason,
        "source": source,
        "frames": seen.source.frames,
        "classes": seen.settled.classes.to_json(),
        "preprocessing": seen.settled.preprocessing.to_json(),
        "ranges": training_ranges(seen.facts).to_json(),
        "request": dict(request),
    }


def _say_settled(settled: Settled, asked: DataConfig, splits: Splits, folds: int) -> None:
    spec, erosion_mm = settled.spec, asked.component_erosion_mm
    spacing = "as it is" if spec.spacing_mm is None else f"{spec.spacing_mm:g} {spec.unit}"
    logger.info(
        f"spacing {spacing}, window {spec.size[0]} × {spec.size[1]} pixels, "
        f"slice axis {spec.slice_axis} of {spec.orientation or 'the file'}, normalization {spec.normalization}, "
        f"classes {', '.join(settled.classes.names)}, label maps: {settled.preprocessing.postprocessing.words_in(spec.unit)}"
    )
    if erosion_mm not in ("auto", settled.preprocessing.postprocessing.erosion_mm):
        logger.info(f"data.component_erosion_mm is 0, not {erosion_mm:g}: the masks do not show that every class is one part")
    if len(splits.folds) < folds:
        logger.info(f"{len(splits.folds)} folds, since there are no more labelled patients")
