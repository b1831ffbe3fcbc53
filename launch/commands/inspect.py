"""`attunet inspect`: the contents of a path in plain lines, and what looks wrong with them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.decisions import Choices, as_findings
from attunet.errors import InputError
from attunet.export.artefact.card import card
from attunet.io.dicom.file import may_be_slice
from attunet.manifest import MANIFEST
from attunet.metrics.aggregate import describe_dice
from attunet.preparation.case_facts import CaseFacts
from attunet.preparation.facts_cache import scan_readable_cases
from attunet.preparation.survey import Survey, survey
from attunet.runs.run_folder import holds_runs, is_snapshots
from attunet.sources.case_files import SourceOptions, content_hash, files_in
from attunet.sources.find_cases import find_cases
from attunet.sources.read_case import MaskOptions, read_case
from attunet.sources.unpack import is_archive, unpack
from attunet.store import Store, open_store
from attunet.store_damage import damage
from attunet.system.log_lines import forward_log
from attunet.system.outputs import require_ending
from attunet.system.private_folder import PrivateFolder
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume


def check_picture(picture: Path, path: Path) -> None:
    """Raises InputError for a file that is no PNG, that lies in the inspected folder or in the source of the inspected
    store, where it might be a scan, or that the store was made of.
    """
    require_ending(picture, ".png")
    folders = {path: "whose files are inspected"}
    if (path / MANIFEST).is_file():
        store = open_store(path)
        hashes = {digest for case in store.cases for digest in case.source_sha256.values()}
        if picture.is_file() and content_hash(picture) in hashes:
            raise InputError(f"{picture}: is a file that {path} was made of; name another one")
        if not store.is_pseudonymised:
            folders[store.source_root] = f"of which {path} was made"
    for folder, words in folders.items():
        if picture.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{picture}: must lie outside of {folder}, {words}")


def describe(path: Path, options: SourceOptions, picture: Path | None = None) -> Iterator[str]:
    """Lines about a source, a store, a run, an artefact or one volume; InputError for a path that is none of these.
    picture: a PNG file for a page with all cases of a source or a store.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    is_volume = not path.is_dir() or any(may_be_slice(file) for file in files_in(path))
    if path.is_dir() and (path / MANIFEST).is_file():
        return _store(path, picture)
    if is_archive(path):
        return _archive(path, options, picture)
    if not is_volume and not holds_runs(path):
        return _source(path, options, picture)
    if picture is not None:
        raise InputError(f"--picture: is drawn of the cases of a source or a store, and {path} is neither")
    if path.suffix == ".onnx":
        return iter([f"{path}:", *card(path).splitlines()])
    return _volume(path, options.choices) if is_volume else _run(path)


def _store(path: Path, picture: Path | None) -> Iterator[str]:
    store = open_store(path)
    spec, labelled = store.spec, [c for c in store.cases if c.labelled]
    yield (
        f"{path}: a store of {len(store.cases)} cases ({len(labelled)} labelled), "
        f"{sum(c.num_slices for c in store.cases)} slices"
    )
    if store.is_pseudonymised:
        yield "  source    not named: the store is pseudonymised; commands that read the scans take --source"
    else:
        missing = "" if store.source_root.exists() else " (not there now: name it with --source)"
        yield f"  source    {store.source_root}{missing}"
    yield f"  classes   {_describe_classes(store.classes)}"
    yield f"  slices    {_describe_spec(spec, store.channels)}"
    for fold in range(store.num_folds):
        training, held_out = store.split(fold)
        yield f"  fold {fold}    {len(training)} cases to train on, left out: {', '.join(held_out)}"
    if held_back := [case.name for case in store.cases if case.patient in store.splits.test]:
        yield f"  test set  {', '.join(held_back)}, in no fold"
    for case in store.cases:
        mark = "" if case.labelled else ", no labels"
        yield f"  {case.name}: {' × '.join(map(str, case.native_shape))} voxels of {_mm(case.spacing)}{mark}"
    for finding in store.findings:
        yield finding.line()
    yield from (f"error: {error}" for error in damage(store))
    if picture is not None:
        draw_store(store, picture, f"{store.name}: {len(store.cases)} cases")
        yield f"picture: {picture}"


def draw_store(store: Store, picture: Path, title: str) -> None:
    """Draw all cases of a store, as they are in its source, on one page."""
    from attunet.plots.contact_sheet import draw_cases

    cases = ((case.name, *store.read_source(case.name)) for case in store.cases)
    draw_cases(picture, cases, store.classes, slice_axis=store.spec.slice_axis, title=title)


def _run(path: Path) -> Iterator[str]:
    from attunet.runs.ensemble import load_runs
    from attunet.runs.run_folder import read_metrics

    run = load_runs(path)
    state = "finished" if run.finished else "not finished; continue it with --resume"
    members = "snapshots" if is_snapshots(path) else "runs"
    what = "a run" if run.num_members == 1 else f"an ensemble of {run.num_members} {members}"
    network = f"{' and '.join(run.networks)}, {run.num_parameters:,} parameters"
    yield f"{path}: {what} of {network}, at step {run.step} ({state})"
    yield f"  store     {run.store}{'' if run.store.exists() else ' (not there now)'}, fold {run.fold}"
    yield f"  classes   {_describe_classes(run.classes)}"
    yield f"  slices    {_describe_spec(run.spec, run.channels)}"
    yield f"  trained   {', '.join(run.training_cases)}"
    yield f"  left out  {', '.join(run.held_out) or 'nothing'}"
    if run.num_members > 1:
        return
    rows = read_metrics(path)
    for row in [row for row in rows if row["event"] in ("validation", "native")][-2:]:
        where = "on the native grid" if row["event"] == "native" else "on the store's grid"
        yield f"  Dice      {describe_dice(row['dice'])} at step {row['step']}, {where}"
    if not rows:
        yield "warning: metrics.jsonl has no line"


def _archive(path: Path, options: SourceOptions, picture: Path | None) -> Iterator[str]:
    """The lines of the folder in an archive, which is unpacked as long as it is inspected."""
    with PrivateFolder() as folder:
        root, logged = Path(folder.path, path.name.partition(".")[0]), list[str]()
        try:
            with forward_log(logged.append):
                unpack(path, root, options.layout)
            yield from logged
            for line in _source(root, options, picture):
                yield line.replace(str(root), str(path))
        except InputError as error:
            raise InputError(str(error).replace(str(root), str(path))) from None


def _source(path: Path, options: SourceOptions, picture: Path | None) -> Iterator[str]:
    """Reads every case; a case that cannot be read is a line, not the end."""
    source = find_cases(path, options)
    patients = {case.patient for case in source.cases}
    yield (
        f"{path}: a source, layout {source.layout} ({source.reason}): {len(source.cases)} cases of {len(patients)} "
        "patients"
    )
    yield from (f"  {note}" for note in source.notes)
    errors: list[InputError] = []
    try:
        seen = survey(source, scan_readable_cases(source, errors.append), DataConfig())
    except InputError as error:
        yield from (f"error: {unreadable}" for unreadable in errors)
        yield f"error: {error}"
        return
    yield from (f"  {_describe_facts(facts)}" for facts in seen.facts)
    yield from (f"error: {error}" for error in errors)
    for facts in seen.facts:
        if facts.label_values is None:
            yield f"warning: {facts.case}: has no mask; it can be predicted, not trained on"
    yield f"  classes   {_describe_classes(seen.resolved.classes)}"
    yield f"  slices    {_describe_spec(seen.resolved.spec, source.channels)}, as prepare would choose"
    yield from (finding.line() for finding in seen.findings)
    if picture is not None:
        from attunet.plots.contact_sheet import draw_cases

        title = f"{path.name}: {len(seen.facts)} cases"
        draw_cases(picture, _read(seen), seen.resolved.classes, slice_axis=seen.resolved.spec.slice_axis, title=title)
        yield f"picture: {picture}"


def _read(seen: Survey) -> Iterator[tuple[str, Volume, np.ndarray | None]]:
    source, mappings = seen.source, seen.resolved.mappings
    for case in source.cases:
        options = MaskOptions(case.label_values, source.grey_levels, source.choices)
        yield case.case, *read_case(case.images, case.labels, mappings.get(case.case), options)


def _describe_facts(facts: CaseFacts) -> str:
    low, high = facts.intensity[0]["min"], facts.intensity[0]["max"]
    labels = "no mask" if facts.label_values is None else f"label values {', '.join(map(str, facts.label_values))}"
    size = f"{' × '.join(map(str, facts.native_shape))} voxels of {_mm(facts.spacing)} {facts.unit}"
    return f"{facts.case}: {size}, intensities {low:g} to {high:g}, {labels}"


def _volume(path: Path, choices: Choices) -> Iterator[str]:
    from attunet.io.readers import read_volume

    volume = read_volume(path, channels=None, choices=choices)
    shape = " × ".join(map(str, volume.shape))
    yield f"{path}: a volume, {shape} voxels of {_mm(volume.spacing)} {volume.unit}, {len(volume.data)} channel(s)"
    data = volume.data
    yield f"  values    {data.dtype}, {data.min():g} to {data.max():g}, mean {data.mean():.4g}"
    yield from (finding.line() for finding in as_findings({None: volume.decisions}))


def _describe_classes(classes: Classes) -> str:
    return ", ".join(f"{value} {name}" for name, value in zip(classes.names, classes.values, strict=True))


def _describe_spec(spec: PreprocessSpec, channels: Sequence[str]) -> str:
    names = f" ({', '.join(channels)})" if len(channels) == spec.num_channels else ""
    spacing = "the native spacing" if spec.spacing_mm is None else f"{spec.spacing_mm:g} {spec.unit}"
    context = "" if spec.context_slices == 1 else f", {spec.context_slices} neighbours as channels"
    return (
        f"{spec.size[0]} × {spec.size[1]} pixels at {spacing}, axis {spec.slice_axis} of "
        f"{spec.orientation or 'the file'}, "
        f"{spec.num_channels} channel(s){names}{context}, normalization {spec.normalization}"
    )


def _mm(spacing: tuple[float, ...]) -> str:
    return " × ".join(f"{v:.3g}" for v in spacing)
