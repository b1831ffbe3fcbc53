"""`attunet inspect`: what a path holds, in plain lines, and what looks wrong with it."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attunet.errors import InputError
from attunet.spec import PreprocessSpec
from attunet.store import MANIFEST, Store, open_store

FAR_FROM_MEDIAN = 3.0  # a case whose figure is that many times the median, or a third of it, is named


def describe(path: Path) -> Iterator[str]:
    """Lines about a source, a store, a run, an artefact or one volume. Raises InputError for a path that is none of these."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return _store(path)
        return _run(path) if (path / "checkpoints").is_dir() else _source(path)
    return _artefact(path) if path.suffix == ".onnx" else _volume(path)


def _store(path: Path) -> Iterator[str]:
    store = open_store(path)
    spec, labelled = store.spec, [c for c in store.cases if c.labelled]
    yield f"{path}: a store of {len(store.cases)} cases ({len(labelled)} labelled), {sum(c.num_slices for c in store.cases)} slices"
    yield f"  source    {store.source_root}{'' if store.source_root.exists() else ' (not there now: name it with --source)'}"
    yield f"  classes   {', '.join(f'{v} {n}' for n, v in zip(store.classes.names, store.classes.values, strict=True))}"
    yield f"  slices    {_spec_in_words(spec)}"
    for fold in range(store.num_folds):
        training, held_out = store.split(fold)
        yield f"  fold {fold}    {len(training)} cases to train on, left out: {', '.join(held_out)}"
    for case in store.cases:
        mark = "" if case.labelled else ", no labels"
        yield f"  {case.name}: {' × '.join(map(str, case.native_shape))} voxels of {_mm(case.spacing)} mm{mark}"
    for finding in store.manifest.get("findings", []):
        yield f"{finding['level']}: {finding['case'] + ': ' if finding['case'] else ''}{finding['text']} [{finding['rule']}]"
    yield from _odd_ones("spacing", {c.name: c.spacing[0] for c in store.cases})
    yield from _damage(store)


def _damage(store: Store) -> Iterator[str]:
    for case in store.cases:
        try:
            store.image(case.name)
            if case.labelled:
                store.label(case.name)
        except InputError as error:
            yield f"error: {error}"


def _run(path: Path) -> Iterator[str]:
    from attunet.training.run import load_run
    from attunet.training.run_folder import read_metrics

    run = load_run(path)
    state = "finished" if run.finished else "not finished; continue it with --resume"
    yield f"{path}: a run of {run.config.model.name}, {run.num_parameters:,} parameters, at step {run.step} ({state})"
    yield f"  store     {run.store}{'' if run.store.exists() else ' (not there now)'}, fold {run.fold}"
    yield f"  slices    {_spec_in_words(run.spec)}"
    yield f"  trained   {', '.join(run.training_cases)}"
    yield f"  left out  {', '.join(run.held_out) or 'nothing'}"
    rows = read_metrics(path)
    validations = [row for row in rows if row["event"] in ("validation", "native")]
    for row in validations[-2:]:
        dice = row["dice"]
        where = "on the native grid" if row["event"] == "native" else "on the store's grid"
        yield f"  Dice      {_dice_in_words(dice)} at step {row['step']}, {where}"
    if not rows:
        yield "warning: metrics.jsonl has no line"


def _artefact(path: Path) -> Iterator[str]:
    from attunet.export.artefact import read_artefact

    about = read_artefact(path)
    seen = about.dice_at_export
    yield f"{path}: an artefact, {about.name}, {about.precision}, {about.num_parameters:,} parameters, {path.stat().st_size / 1e6:.1f} MB"
    yield f"  classes   {', '.join(f'{v} {n}' for n, v in zip(about.classes.names, about.classes.values, strict=True))}"
    yield f"  slices    {_spec_in_words(about.spec)}"
    yield f"  outputs   {', '.join(about.outputs)}"
    yield f"  trained   {', '.join(about.training_cases)} (fold {about.fold}, {about.step} steps)"
    if seen.get("artefact") is not None:
        yield f"  Dice      {seen['artefact']:.4f} at export, on {seen['cases']} cases; the checkpoint {seen['checkpoint']:.4f}"
    yield f"  made by   {', '.join(f'{name} {version}' for name, version in about.tools.items())}"
    if about.license:
        yield f"  licence   {about.license}"


def _source(path: Path) -> Iterator[str]:
    """Reads every case; a case that cannot be read is a line, not the end."""
    from attunet.codings import choose_coding
    from attunet.layouts import find_cases
    from attunet.scan import scan_case

    source = find_cases(path)
    patients = {case.patient for case in source.cases}
    yield f"{path}: a source, layout {source.layout} ({source.reason}): {len(source.cases)} cases of {len(patients)} patients"
    spacings, volumes = {}, {}
    for case in source.cases:
        try:
            facts = scan_case(case)
            values = facts.label_values
            coding = choose_coding(values, source.codings, case.label or path) if values is not None else None
        except InputError as error:
            yield f"error: {error}"
            continue
        low, high = facts.intensity[0]["min"], facts.intensity[0]["max"]
        size = f"{' × '.join(map(str, facts.native_shape))} voxels of {_mm(facts.spacing)} {facts.unit}"
        labels = "no mask"
        if values is not None and coding is not None:
            voxel = facts.spacing[0] * facts.spacing[1] * facts.spacing[2] / 1000
            volumes[case.case] = voxel * sum(count for value, count in values.items() if value != coding.values[0])
            present = [name for name, value in zip(coding.foreground, coding.values[1:], strict=True) if value in values]
            labels = ", ".join(present) or "an empty mask"
        yield f"  {case.case}: {size}, intensities {low:g} to {high:g}; {labels}"
        spacings[case.case] = facts.spacing[0]
        if values is None:
            yield f"warning: {case.case}: has no mask; it can be predicted, not trained on"
        elif coding is not None and (absent := [n for n, v in zip(coding.names, coding.values, strict=True) if v not in values]):
            yield f"warning: {case.case}: its mask has no {', '.join(absent)}"
        if low == high:
            yield f"warning: {case.case}: every voxel has the value {low:g}"
    yield from _odd_ones("spacing", spacings)
    yield from _odd_ones("labelled volume", volumes)


def _volume(path: Path) -> Iterator[str]:
    from attunet.readers import read_volume

    volume = read_volume(path)
    shape = " × ".join(map(str, volume.shape))
    yield f"{path}: a volume, {shape} voxels of {_mm(volume.spacing)} {volume.unit}, {len(volume.data)} channel(s)"
    yield f"  values    {volume.data.dtype}, {volume.data.min():g} to {volume.data.max():g}, mean {volume.data.mean():.4g}"


def _odd_ones(what: str, figures: dict[str, float]) -> Iterator[str]:
    """Cases whose figure is far from the others'."""
    if len(figures) < 3:
        return
    middle = statistics.median(figures.values())
    for case, value in figures.items():
        if middle > 0 and not middle / FAR_FROM_MEDIAN <= value <= middle * FAR_FROM_MEDIAN:
            yield f"warning: {case}: its {what} of {value:.4g} is far from the median, {middle:.4g}"


def _spec_in_words(spec: PreprocessSpec) -> str:
    spacing = "the native spacing" if spec.spacing_mm is None else f"{spec.spacing_mm:g} mm"
    context = "" if spec.context_slices == 1 else f", {spec.context_slices} neighbours as channels"
    return (
        f"{spec.size[0]} × {spec.size[1]} pixels at {spacing}, axis {spec.slice_axis} of {spec.orientation or 'the file'}, "
        f"{spec.num_channels} channel(s){context}, normalization {spec.normalization}"
    )


def _dice_in_words(dice: dict[str, Any]) -> str:
    organs = ", ".join(f"{name} {value:.3f}" for name, value in dice["per_class"].items() if value is not None)
    return f"{dice['mean'] or 0:.4f} ({organs})"


def _mm(spacing: tuple[float, ...]) -> str:
    return " × ".join(f"{v:.3g}" for v in spacing)
