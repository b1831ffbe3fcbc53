"""`attunet inspect`: what a path holds, in plain lines, and what looks wrong with it."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.io.dicom import is_dicom
from attunet.preparation.case_facts import CaseFacts, scan_case
from attunet.preparation.checks import check_cases
from attunet.preparation.resolve_data import Settled, settle
from attunet.sources.case_files import CaseFiles, Source, files_in
from attunet.sources.codings import parse_classes, to_indices
from attunet.sources.find_cases import find_cases
from attunet.sources.read_case import read_image, read_labels
from attunet.sources.unpack import is_archive, unpack
from attunet.store import MANIFEST, Store, open_store
from attunet.system.log_lines import forward_log
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """How a source is read, as for `prepare`; picture: where a sheet of all cases goes."""

    layout: str = "auto"
    classes: str | None = None
    case_pattern: str | None = None
    picture: Path | None = None

    def find(self, path: Path) -> Source:
        classes = parse_classes(self.classes) if self.classes else None
        return find_cases(path, self.layout, classes=classes, case_pattern=self.case_pattern)


def describe(path: Path, options: SourceOptions) -> Iterator[str]:
    """Lines about a source, a store, a run, an artefact or one volume. Raises InputError for a path that is none of these."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return _store(path, options.picture)
        if any(is_dicom(file) for file in files_in(path)):
            return _volume(path)
        return _run(path) if _holds_runs(path) else _source(path, options)
    if is_archive(path):
        return _archive(path, options)
    return _artefact(path) if path.suffix == ".onnx" else _volume(path)


def _store(path: Path, picture: Path | None) -> Iterator[str]:
    store = open_store(path)
    spec, labelled = store.spec, [c for c in store.cases if c.labelled]
    yield f"{path}: a store of {len(store.cases)} cases ({len(labelled)} labelled), {sum(c.num_slices for c in store.cases)} slices"
    yield f"  source    {store.source_root}{'' if store.source_root.exists() else ' (not there now: name it with --source)'}"
    yield f"  classes   {_classes_in_words(store.classes)}"
    yield f"  slices    {_spec_in_words(spec)}"
    for fold in range(store.num_folds):
        training, held_out = store.split(fold)
        yield f"  fold {fold}    {len(training)} cases to train on, left out: {', '.join(held_out)}"
    for case in store.cases:
        mark = "" if case.labelled else ", no labels"
        yield f"  {case.name}: {' × '.join(map(str, case.native_shape))} voxels of {_mm(case.spacing)}{mark}"
    for finding in store.manifest.get("findings", []):
        yield f"{finding['level']}: {finding['case'] + ': ' if finding['case'] else ''}{finding['text']} [{finding['rule']}]"
    yield from _damage(store)
    if picture is not None:
        cases = ((case.name, *store.read_source(case.name)) for case in store.cases)
        from attunet.plots.contact_sheet import draw_cases

        draw_cases(picture, cases, store.classes, slice_axis=spec.slice_axis, title=f"{store.name}: {len(store.cases)} cases")
        yield f"picture: {picture}"


def _damage(store: Store) -> Iterator[str]:
    for case in store.cases:
        try:
            store.image(case.name)
            if case.labelled:
                store.label(case.name)
        except InputError as error:
            yield f"error: {error}"


def _holds_runs(path: Path) -> bool:
    return any(any(path.glob(f"{'*/' * depth}checkpoints")) for depth in range(4))


def _run(path: Path) -> Iterator[str]:
    from attunet.runs.ensemble import load_runs
    from attunet.runs.run_folder import read_metrics

    run = load_runs(path)
    state = "finished" if run.finished else "not finished; continue it with --resume"
    what = "a run" if run.num_members == 1 else f"an ensemble of {run.num_members} runs"
    yield f"{path}: {what} of {run.config.model.name}, {run.num_parameters:,} parameters, at step {run.step} ({state})"
    yield f"  store     {run.store}{'' if run.store.exists() else ' (not there now)'}, fold {run.fold}"
    yield f"  slices    {_spec_in_words(run.spec)}"
    yield f"  trained   {', '.join(run.training_cases)}"
    yield f"  left out  {', '.join(run.held_out) or 'nothing'}"
    if run.num_members > 1:
        return
    rows = read_metrics(path)
    validations = [row for row in rows if row["event"] in ("validation", "native")]
    for row in validations[-2:]:
        dice = row["dice"]
        where = "on the native grid" if row["event"] == "native" else "on the store's grid"
        yield f"  Dice      {_dice_in_words(dice)} at step {row['step']}, {where}"
    if not rows:
        yield "warning: metrics.jsonl has no line"


def _artefact(path: Path) -> Iterator[str]:
    from attunet.export.artefact.card import card

    yield f"{path}:"
    yield card(path)


def _archive(path: Path, options: SourceOptions) -> Iterator[str]:
    """As the folder that is in it, unpacked for as long as it is looked at."""
    with tempfile.TemporaryDirectory(prefix="attunet-inspect-") as folder:
        root, said = Path(folder, path.stem), list[str]()
        try:
            with forward_log(said.append):
                unpack(path, root, options.layout)
            yield from said
            for line in _source(root, options):
                yield line.replace(str(root), str(path))
        except InputError as error:
            raise InputError(str(error).replace(str(root), str(path))) from None


def _source(path: Path, options: SourceOptions) -> Iterator[str]:
    """Reads every case; a case that cannot be read is a line, not the end."""
    source = options.find(path)
    patients = {case.patient: case.case for case in source.cases}
    yield f"{path}: a source, layout {source.layout} ({source.reason}): {len(source.cases)} cases of {len(patients)} patients"
    yield from (f"  {note}" for note in source.notes)
    good: dict[CaseFiles, CaseFacts] = {}
    for case in source.cases:
        try:
            good[case] = scan_case(case, frames=source.frames)
        except InputError as error:
            yield f"error: {error}"
            continue
        yield f"  {_facts_in_words(good[case])}"
    if not good:
        return
    facts = list(good.values())
    yield from (f"warning: {f.case}: has no mask; it can be predicted, not trained on" for f in facts if f.label_values is None)
    try:
        settled = settle(dataclasses.replace(source, cases=tuple(good)), facts, DataConfig())
    except InputError as error:
        yield f"error: {error}"
        return
    yield f"  classes   {_classes_in_words(settled.classes)}"
    yield f"  slices    {_spec_in_words(settled.spec)}, as prepare would choose"
    for finding in check_cases(facts, {case.case: case.patient for case in good}, settled.mappings, settled.classes):
        yield finding.line()
    if options.picture is not None:
        cases, title = _read(good, settled, source.frames), f"{path.name}: {len(good)} cases"
        from attunet.plots.contact_sheet import draw_cases

        draw_cases(options.picture, cases, settled.classes, slice_axis=settled.spec.slice_axis, title=title)
        yield f"picture: {options.picture}"


def _read(good: dict[CaseFiles, CaseFacts], settled: Settled, frames: bool) -> Iterator[tuple[str, Volume, np.ndarray | None]]:
    for case, facts in good.items():
        volume = read_image(case.images, frames=frames)
        labels = None
        if case.labels and facts.case in settled.mappings:
            values, _ = read_labels(case.labels, volume, case.images[0])
            labels = to_indices(values, settled.mappings[facts.case], case.labels[0])
        yield case.case, volume, labels


def _facts_in_words(facts: CaseFacts) -> str:
    low, high = facts.intensity[0]["min"], facts.intensity[0]["max"]
    labels = "no mask" if facts.label_values is None else f"label values {', '.join(map(str, facts.label_values))}"
    size = f"{' × '.join(map(str, facts.native_shape))} voxels of {_mm(facts.spacing)} {facts.unit}"
    return f"{facts.case}: {size}, intensities {low:g} to {high:g}, {labels}"


def _volume(path: Path) -> Iterator[str]:
    from attunet.io.readers import read_volume

    volume = read_volume(path, channels=None)
    shape = " × ".join(map(str, volume.shape))
    yield f"{path}: a volume, {shape} voxels of {_mm(volume.spacing)} {volume.unit}, {len(volume.data)} channel(s)"
    yield f"  values    {volume.data.dtype}, {volume.data.min():g} to {volume.data.max():g}, mean {volume.data.mean():.4g}"


def _classes_in_words(classes: Classes) -> str:
    return ", ".join(f"{value} {name}" for name, value in zip(classes.names, classes.values, strict=True))


def _spec_in_words(spec: PreprocessSpec) -> str:
    spacing = "the native spacing" if spec.spacing_mm is None else f"{spec.spacing_mm:g} {spec.unit}"
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
