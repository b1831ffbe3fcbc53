"""Preparation of a source as a store: scan all cases, resolve the preprocessing, write a shard per case, rename."""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from attunet.config import DataConfig
from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.manifest import SCHEMA, read_manifest
from attunet.preparation.checks import same_scans, training_ranges
from attunet.preparation.resolve_data import Resolved
from attunet.preparation.scan_case import case_hashes
from attunet.preparation.survey import Survey, refuse_errors, survey
from attunet.preparation.write_store import build_store
from attunet.sources.case_files import DEFAULTS, Source, SourceOptions
from attunet.sources.find_cases import find_cases
from attunet.sources.labelled import read_labelled, with_labelled
from attunet.sources.pseudonymise import find_named_cases, pseudonymised
from attunet.sources.unpack import is_archive, unpack
from attunet.splits import Splits, deal_folds, read_splits
from attunet.store import Store, open_store
from attunet.system.atomic_files import sha256, write_error
from attunet.system.lock import writing
from attunet.system.pseudonyms import Pseudonyms, pseudonyms
from attunet.system.workers import over_cases
from attunet.version import __version__

logger = logging.getLogger(__name__)

UNPACKED = "source"  # the folder in a store that holds the files of an archive
UNLABELLED_PART = re.compile(r"(?i)(^|[-_ ])(test|testing|val|valid|validation)|validationdata|testdata")


def prepare(
    source: Path | str,
    store: Path | str,
    config: DataConfig,
    *,
    options: SourceOptions = DEFAULTS,
    folds: int = 5,
    seed: int = 0,
    splits_file: Path | None = None,
    allow_unlabelled: bool = False,
    labelled_file: Path | None = None,
    strict: bool = False,
    pseudonymise: Path | None = None,
) -> Store:
    """Write the store of a source and open it.

    The store is built in `STORE.partial/` and renamed when it is complete. After a kill, the same call continues with
    the unfinished cases. An existing store of the same files and settings is left unchanged.

    Args:
        source: a folder, or an archive of one.
        store: the new folder.
        config: the `[data]` section; values of `auto` are resolved from the cases.
        options: layout, classes, patients and interpretations of the source.
        folds: number of folds, at least 2; all cases of a patient are in one fold.
        seed: seed with which the folds are drawn.
        splits_file: the user's own splits.json.
        allow_unlabelled: True prepares images without a mask too.
        labelled_file: JSON with the classes that were drawn in each case, see `read_labelled`; all classes by default.
        strict: True treats warnings about the data as errors.
        pseudonymise: a CSV file outside of the store, which gets the names of cases and patients; store and log contain
            numbers instead.

    Returns:
        The opened store.

    Raises:
        InputError: a file cannot be read, an image has no mask, a check has found an error, or the store exists with
            other files or settings.
        RunError: the disk is full or fails.

    Example:
        prepare("cases", "store", DataConfig(), options=SourceOptions(case_pattern=r"^(p\\d+)_"))
    """
    source, store = Path(source), Path(store)
    if folds < 2:
        raise InputError(f"folds: must be at least 2, got {folds}")
    building = store.with_name(store.name + ".partial")
    if pseudonymise and is_archive(source):
        raise InputError(
            f"{source}: the files of an archive keep their names in the store; unpack it, to pseudonymise its cases"
        )
    with pseudonyms(pseudonymise, (store, building)) as names, _writing(store, building):
        root, archive = _folder_of(source, store, building, options.layout)
        cases, own, labelled = _read_cases(root, options, names, splits_file, labelled_file, allow_unlabelled)
        for line in (f"layout {cases.layout} ({cases.reason}), {len(cases.cases)} cases", *cases.notes):
            logger.info(f"{source}: {line}")
        request = _request(options, config, own.to_json() if own else [folds, seed], archive) | {"labelled": labelled}
        if store.exists():
            return _unchanged(store, cases, request)
        seen = survey(cases, config, splits=own, building=building)
        refuse_errors(seen.findings, strict)
        splits = own or _deal(seen, folds, seed)
        _log_resolved(seen.resolved, config, splits, folds)
        head = _head(seen, store.name, UNPACKED if archive else str(root.resolve()), request, names is not None)
        findings = build_store(store, building, _hidden(seen, names), splits, head, strict=strict)
    for finding in findings:
        finding.log(logger)
    del seen, cases, head  # free the facts of a hundred thousand cases before the store is read
    opened = open_store(store)
    logger.info(f"{store}: {len(opened.cases)} cases, {sum(c.num_slices for c in opened.cases)} slices")
    return opened


def _read_cases(
    root: Path,
    options: SourceOptions,
    names: Pseudonyms | None,
    splits_file: Path | None,
    labelled_file: Path | None,
    allow_unlabelled: bool,
) -> tuple[Source, Splits | None, Mapping[str, list[str]]]:
    """Read the cases below `root`, the user's own splits, and the classes drawn in each case; `names` hides names."""
    cases = _labelled(find_named_cases(root, options, names) if names else find_cases(root, options), allow_unlabelled)
    labelled = read_labelled(labelled_file) if labelled_file else {}
    if labelled_file:
        cases = with_labelled(cases, labelled, labelled_file)
    cases, own = _with_splits(cases, splits_file)
    if names is None:
        return cases, own, labelled
    numbers = names.numbers_of([*labelled, *(own.places() if own else ())])
    hidden = {numbers[case]: drawn for case, drawn in labelled.items()}
    return pseudonymised(cases, names), own.renamed(numbers) if own else None, hidden


@contextmanager
def _writing(store: Path, building: Path) -> Iterator[None]:
    """Hold the lock of a new store; after an InputError, remove the files of an archive that were unpacked into it."""
    if building.is_symlink():
        raise InputError(f"{building}: must be a folder, not a link; remove it")
    fresh = not building.exists()
    with ExitStack() as stack:
        try:
            if not store.exists():
                stack.enter_context(writing(store, "prepare"))
            yield
        except InputError:
            if fresh:
                shutil.rmtree(building, ignore_errors=True)
            raise
        except OSError as error:
            raise write_error(building, error) from None


def _hidden(seen: Survey, names: Pseudonyms | None) -> Survey:
    """Replace names by numbers in the findings of a survey, if names are hidden."""
    return (
        seen
        if names is None
        else replace(seen, findings=tuple(replace(one, text=names.hide(one.text)) for one in seen.findings))
    )


def _request(options: SourceOptions, config: DataConfig, splits: object, archive: str | None) -> dict[str, object]:
    """Return the choices of the caller, for the manifest."""
    classes = options.classes and [options.classes[0].to_json(), options.classes[1]]
    chosen = {**vars(options), "classes": classes, "choices": dict(options.choices)}
    return {**chosen, "data": vars(config), "splits": splits, "archive_sha256": archive}


def _with_splits(source: Source, splits_file: Path | None) -> tuple[Source, Splits | None]:
    """Read the user's own splits; if they list cases instead of patients, every case becomes a patient of its own."""
    if splits_file is None:
        return source, None
    listed = set(read_splits(splits_file).places())
    if listed == {case.case for case in source.cases if case.labels}:
        source = replace(source, cases=tuple(replace(case, patient=case.case) for case in source.cases))
    own = read_splits(splits_file, {case.patient for case in source.cases if case.labels})
    return replace(source, patients_given=True), own


def _deal(seen: Survey, folds: int, seed: int) -> Splits:
    """Draw folds of the patients; the test part of the data set itself, if any, becomes the test set."""
    patients, test = {case.patient for case in seen.source.cases if case.labels}, seen.source.test_patients
    splits = deal_folds([p for p in patients if p not in test], folds, seed, _sharing(seen))
    return replace(splits, test=tuple(sorted(test)))


def _folder_of(source: Path, store: Path, building: Path, layout: str) -> tuple[Path, str | None]:
    """Return the folder with the source's files, and the SHA-256 of an archive, which is unpacked into the store."""
    if not is_archive(source):
        return source, None
    if store.exists():
        return store / UNPACKED, sha256(source)
    return building / UNPACKED, unpack(source, building / UNPACKED, layout)


def _labelled(source: Source, allow_unlabelled: bool) -> Source:
    """Leave out a test or validation part without masks; raises InputError for other images without a mask."""
    if allow_unlabelled:
        return source
    labelled = {folder for case in source.cases if case.labels for folder in case.images[0].parents}
    part = [
        c
        for c in source.cases
        if not c.labels and any(UNLABELLED_PART.search(f.name) for f in c.images[0].parents if f not in labelled)
    ]
    if part and len(part) < len(source.cases):
        reading = Decision(
            "unlabelled-part",
            (
                f"{len(part)} of {len(source.cases)} images lie in a part without masks and are left out, first "
                f"{part[0].images[0].name}"
            ),
        )
        cases = tuple(case for case in source.cases if case not in part)
        source = replace(source, cases=cases, decisions=(*source.decisions, reading))
    if without := [c for c in source.cases if not c.labels]:
        count = f"{len(without)} of {len(source.cases)} images have none"
        raise InputError(f"{without[0].images[0]}: has no mask ({count}; allow with --allow-unlabelled)")
    return source


def _sharing(seen: Survey) -> list[set[str]]:
    """Group patients that share a scan."""
    patients = {case.case: case.patient for case in seen.source.cases if case.labels}
    shared = ({patients[case] for case in cases if case in patients} for cases in same_scans(seen.facts))
    return [group for group in shared if len(group) > 1]


def _unchanged(store: Path, source: Source, request: Mapping[str, object]) -> Store:
    """Open the existing store if it was made of the same files and settings."""
    manifest = read_manifest(store)
    made_of = {
        entry.text("case"): tuple(
            tuple(file.text("sha256") for file in entry.rows(key)) for key in ("image_files", "label_files")
        )
        for entry in manifest.rows("cases")
    }
    if manifest.data["request"] == json.loads(json.dumps(request)) and set(made_of) == {c.case for c in source.cases}:
        hashes = over_cases(case_hashes, source.cases)
        if all(made_of[case.case] == now for case, now in zip(source.cases, hashes, strict=True)):
            logger.info(f"{store}: is up to date, nothing to do")
            return open_store(store)
    raise InputError(f"{store}: exists and was made of other files or settings; choose another name or remove it")


def _head(
    seen: Survey, name: str, source: str, request: Mapping[str, object], pseudonymised: bool
) -> dict[str, object]:
    """Return the manifest without its cases."""
    return {
        "schema": SCHEMA,
        "attunet": __version__,
        "name": name,
        "layout": seen.source.layout,
        "reason": seen.source.reason,
        "source": "." if pseudonymised else source,
        "pseudonymised": pseudonymised,
        "choices": dict(seen.source.choices),
        "grey_levels": list(seen.source.grey_levels),
        "classes": seen.resolved.classes.to_json(),
        "channels": list(seen.source.channels) if len(seen.source.channels) == seen.resolved.spec.num_channels else [],
        "preprocessing": seen.resolved.preprocessing.to_json(),
        "ranges": training_ranges(seen.facts).to_json(),
        "request": dict(request),
    }


def _log_resolved(resolved: Resolved, requested: DataConfig, splits: Splits, folds: int) -> None:
    spec, erosion_mm = resolved.spec, requested.component_erosion_mm
    spacing = "as it is" if spec.spacing_mm is None else f"{spec.spacing_mm:g} {spec.unit}"
    logger.info(
        f"spacing {spacing}, window {spec.size[0]} × {spec.size[1]} pixels, slice axis {spec.slice_axis} of "
        f"{spec.orientation or 'the file'}, normalization {spec.normalization}, classes "
        f"{', '.join(resolved.classes.names)}, label maps: {resolved.preprocessing.postprocessing.words_in(spec.unit)}"
    )
    if erosion_mm not in ("auto", resolved.preprocessing.postprocessing.erosion_mm):
        logger.info(
            f"data.component_erosion_mm is 0, not {erosion_mm:g}: the masks do not show that every class is one part"
        )
    if len(splits.folds) < folds:
        logger.info(f"{len(splits.folds)} folds, since there are no more labelled patients")
