"""Preparation of a source as a store: scan all cases, resolve the preprocessing, write a shard per case, rename."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.fields import MAX_WHOLE, is_whole
from attunet.manifest import SCHEMA, require_store
from attunet.preparation.checks import same_scans, training_ranges
from attunet.preparation.facts_cache import scan_cases
from attunet.preparation.read_cases import read_cases
from attunet.preparation.resolve_data import Resolved
from attunet.preparation.scan_case import case_hashes
from attunet.preparation.survey import Survey, refuse_errors, survey
from attunet.preparation.write_store import WORK, build_store
from attunet.privacy.pseudonyms import Pseudonyms, pseudonyms
from attunet.sources.case_files import DEFAULTS, Source, SourceOptions
from attunet.sources.splits import Splits, deal_folds
from attunet.sources.unpack import is_archive, unpack
from attunet.store import Store, open_store
from attunet.store_damage import damage
from attunet.system.atomic_files import joined_hash, sha256, write_error
from attunet.system.lock import beside, writing
from attunet.system.outputs import claim_unfinished, remove_mark
from attunet.system.workers import over_cases
from attunet.version import __version__

logger = logging.getLogger(__name__)

MAY_HAVE_NAMES = ("case_pattern", "images", "masks")  # options: a store without names tells that they were given
UNPACKED = "source"  # the folder in a store that holds the files of an archive


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
        pseudonymise: a CSV file outside of the store for the names of cases; store and log contain numbers instead.

    Returns:
        The store, opened.

    Raises:
        InputError: the source or a setting is wrong, or the store exists with other files or settings.
        RunError: the disk is full or fails.

    Example:
        >>> store = prepare("cases", "store", DataConfig(), folds=6)  # doctest: +SKIP
        >>> options = SourceOptions(case_pattern=r"^(p\\d+)_")  # doctest: +SKIP
        >>> prepare("pictures", "store-2", DataConfig(), options=options).classes.names  # doctest: +SKIP
    """
    source, store = Path(source), Path(store)
    _check(source, folds, seed, pseudonymise)
    building = beside(store, "", ".partial")
    with pseudonyms(pseudonymise, (store, building)) as names, _writing(store, building) as check:
        root, archive = _folder_of(source, store, building, options.layout)
        cases, given = read_cases(root, options, names, splits_file, labelled_file, allow_unlabelled=allow_unlabelled)
        for line in (f"layout {cases.layout} ({cases.reason}), {len(cases.cases)} cases", *cases.notes):
            logger.info(f"{source}: {line}")
        dealt = given.to_json() if given else [folds, seed]
        request = _request(cases, options, config, archive, splits=dealt, has_drawn=bool(labelled_file))
        if names:
            _check_series(options.choices.get("dicom-series", ""), names)
            request = _without_names(request)
        if store.exists():
            return _unchanged(store, cases, request)
        seen = _survey(cases, given, config, building, names)
        refuse_errors(seen.findings, strict)
        splits = given or _deal(seen, folds, seed)
        _log_resolved(seen.resolved, config, splits, folds)
        place = "." if names else UNPACKED if archive else str(root.resolve())
        head = _head(seen, store.name, place, request)
        build_store(store, building, seen, splits, head, strict=strict, check=check)
    del seen, cases  # free the facts of a hundred thousand cases before the store is read
    opened = open_store(store)
    logger.info(f"{store}: {len(opened.cases)} cases, {sum(c.num_slices for c in opened.cases)} slices")
    return opened


def _check(source: Path, folds: int, seed: int, pseudonymise: Path | None) -> None:
    if folds < 2:
        raise InputError(f"folds: must be at least 2, got {folds}")
    if not is_whole(seed):
        raise InputError(f"seed: must be an integer from 0 to {MAX_WHOLE - 1:,}, got {seed}")
    if pseudonymise and is_archive(source):
        raise InputError(
            f"{source}: the files of an archive keep their names in the store; unpack it, to pseudonymise its cases"
        )


def _check_series(text: str, names: Pseudonyms) -> None:
    marked = text if text.isdecimal() else f"'{text}'"  # as a name; a number may be the series'
    if names.hide(marked) != marked:
        raise InputError("--series: is kept in the store, and has a name of a case or a file; give the series' number")


@contextmanager
def _writing(store: Path, building: Path) -> Iterator[Callable[[], object]]:
    """Hold the lock of a new store, and give its check; after an InputError, remove the files of an archive that were
    unpacked into it.
    """
    if store.is_symlink() and not store.exists():
        raise InputError(f"{store}: must be a new folder, and is a link to nothing; remove it")
    fresh = False
    with ExitStack() as stack:
        try:
            lock = writing(store, "prepare")
            if not store.exists() or lock.path.exists():  # that of a call which was killed as it removed it
                stack.enter_context(lock)
            if not store.exists():
                fresh = not building.exists()
                claim_unfinished(building, WORK)
            yield lock.check
        except InputError:
            if fresh:
                shutil.rmtree(building, ignore_errors=True)
            raise
        except OSError as error:
            raise write_error(building, error) from None


def _folder_of(source: Path, store: Path, building: Path, layout: str) -> tuple[Path, str | None]:
    """Return the folder with the source's files, and the SHA-256 of an archive, which is unpacked into the store."""
    if not is_archive(source):
        return source, None
    if (store / UNPACKED).is_dir():
        return store / UNPACKED, sha256(source)
    if store.exists():
        raise _of_others(require_store(store))
    return building / UNPACKED, unpack(source, building / UNPACKED, layout)


def _request(
    source: Source, options: SourceOptions, config: DataConfig, archive: str | None, *, splits: object, has_drawn: bool
) -> dict[str, object]:
    """Return the choices of the caller, and a hash of what the source describes besides images and masks, for the
    manifest. has_drawn: True where the caller gave the classes that were drawn in each case.
    """
    drawn = {case.case: case.drawn for case in source.cases if case.drawn is not None} if has_drawn else {}
    described = (
        *(source.layout, source.channels, sorted(source.test_patients), source.grey_ranges, source.grey_levels),
        *(source.ignored, [(coding.names, coding.values) for coding in source.codings]),
        [(case.case, case.patient, case.drawn, case.label_values) for case in source.cases],
    )
    return {
        **vars(options),
        "classes": options.classes and [options.classes[0].to_json(), options.classes[1]],
        "choices": dict(options.choices),
        "data": vars(config),
        "archive_sha256": archive,
        "described_sha256": hashlib.sha256(json.dumps(described).encode()).hexdigest(),
        "splits": splits,
        "labelled": drawn,
    }


def _without_names(request: Mapping[str, object]) -> dict[str, object]:
    """Return the request without the values of options that may have names: even of a hash they could be guessed. Their
    effects, cases, patients and files, are compared as well.
    """
    return {**request, **{key: "hidden" for key in MAY_HAVE_NAMES if request[key]}}


def _unchanged(store: Path, source: Source, request: Mapping[str, object]) -> Store:
    """Open the existing store if it was made of the same files and settings."""
    opened = open_store(store)
    made_of = {case.name: (case.image_sha256, case.label_sha256) for case in opened.cases}
    there = cast(dict[str, object], opened.manifest["request"])
    there = _without_names(there) if opened.is_pseudonymised else there  # older stores have hashes
    if there == json.loads(json.dumps(request)) and set(made_of) == {c.case for c in source.cases}:
        hashes = zip(source.cases, over_cases(case_hashes, source.cases), strict=True)
        now = {case.case: (joined_hash(image), joined_hash(mask) if mask else None) for case, (image, mask) in hashes}
        if made_of == now:
            for error in damage(opened):
                raise error
            remove_mark(store, WORK)
            logger.info(f"{store}: is up to date, nothing to do")
            return opened
    raise _of_others(store)


def _of_others(store: Path) -> InputError:
    return InputError(f"{store}: exists and was made of other files or settings; choose another name or remove it")


def _survey(
    source: Source, splits: Splits | None, config: DataConfig, building: Path, names: Pseudonyms | None
) -> Survey:
    """Survey the cases, without names in the findings if `names` hides them."""
    seen = survey(source, scan_cases(source, building), config, splits)
    if names:
        seen = replace(seen, findings=tuple(replace(one, text=names.hide(one.text)) for one in seen.findings))
    return seen


def _deal(seen: Survey, folds: int, seed: int) -> Splits:
    """Draw folds of the patients, those that share a scan together; the data set's own test part is the test set."""
    patients = {case.case: case.patient for case in seen.source.labelled}
    same = same_scans(seen.facts, {case.case: case.patient for case in seen.source.cases})
    sharing = [{patients[case] for case in cases if case in patients} for cases in same]
    splits = deal_folds(patients.values(), folds, seed, sharing, seen.source.test_patients)
    if splits.test and not splits.folds:
        rule = "all labelled patients are of its test part, or share scans with those: none is left to train on"
        raise InputError(f"{seen.source.root}: {rule}; `--read published-split=mix` takes no test set")
    return splits


def _head(seen: Survey, name: str, place: str, request: Mapping[str, object]) -> dict[str, object]:
    """Return the manifest without its cases. place: of the source, a dot if the names are hidden."""
    source, resolved = seen.source, seen.resolved
    return {
        "schema": SCHEMA,
        "attunet": __version__,
        "name": name,
        "layout": source.layout,
        "reason": source.reason,
        "source": place,
        "pseudonymised": place == ".",
        "choices": dict(source.choices),
        "grey_levels": list(source.grey_levels),
        "classes": resolved.classes.to_json(),
        "channels": list(source.channels) if len(source.channels) == resolved.spec.num_channels else [],
        "preprocessing": resolved.preprocessing.to_json(),
        "ranges": training_ranges(seen.facts).to_json(),
        "request": dict(request),
    }


def _log_resolved(resolved: Resolved, requested: DataConfig, splits: Splits, folds: int) -> None:
    spec, postprocessing = resolved.spec, resolved.preprocessing.postprocessing
    spacing = "as it is" if spec.spacing_mm is None else f"{spec.spacing_mm:g} {spec.unit}"
    logger.info(
        f"spacing {spacing}, window {spec.size[0]} × {spec.size[1]} pixels, slice axis {spec.slice_axis} of "
        f"{spec.orientation or 'the file'}, normalization {spec.normalization}, classes "
        f"{', '.join(resolved.classes.names)}, label maps: {postprocessing.words_in(spec.unit)}"
    )
    erosion_mm = requested.component_erosion_mm
    if erosion_mm not in ("auto", postprocessing.erosion_mm):
        logger.info(
            f"data.component_erosion_mm is 0, not {erosion_mm:g}: the masks do not show that every class is one part"
        )
    if len(splits.folds) < folds:
        logger.info(f"{len(splits.folds)} folds, since there are no more labelled patients")
