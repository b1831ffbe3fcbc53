"""Estimates of Dice for predicted cases: check of the model, and tables of a folder."""

import csv
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypedDict, cast

from attunet.confidence.estimator import Estimator
from attunet.errors import InputError
from attunet.export.runtime.case_output import confidence_file
from attunet.export.runtime.observed_case import ConfidenceOptions
from attunet.export.runtime.origin import TABLES, clear_tables, label_maps_of, unchanged
from attunet.export.runtime.segmenter import Segmenter
from attunet.fields import read_json
from attunet.io.readers import stem_of
from attunet.system.atomic_files import write_text
from attunet.system.lock import waiting
from attunet.system.plain_text import spreadsheet_cell
from attunet.volumes.model import Model

SCHEMA = 1
NEEDS_FIT = (
    "was exported without an estimator of Dice: train a cross-validation with `attunet crossvalidate STORE DIR`, and "
    "export the model with `attunet export RUN OUT.onnx --confidence DIR`"
)

FIGURES = ("dice", "low", "high")  # of an organ: its estimate and the range


class CaseRecord(TypedDict):
    """The file beside a label map, as far as the tables need it."""

    review: bool
    reasons: list[str]
    organs: dict[str, dict[str, float | None]]  # null where there is no estimate


def estimator_of(model: Model) -> Estimator | None:
    """The estimator that an artefact carries; runs have none."""
    return model.estimator if isinstance(model, Segmenter) else None


def gives_estimates(model: Model, options: ConfidenceOptions) -> bool:
    """True where `options` and the model give each case its estimates."""
    is_whole = isinstance(model, Segmenter) and model.metadata.whole
    return options.estimates and estimator_of(model) is not None and not is_whole


def check_confidence(model: Model, path: Path, options: ConfidenceOptions, *, required: bool) -> None:
    """Raises InputError for a model, at `path`, that cannot give what is requested; it says what makes one that can."""
    if isinstance(model, Segmenter) and model.metadata.whole and (options.uncertainty or required):
        raise InputError(
            f"{path}: is a whole artefact, which gives labels alone; confidence needs one exported without --whole"
        )
    if not required or estimator_of(model) is not None:
        return
    if isinstance(model, Segmenter):
        raise InputError(f"{path}: {NEEDS_FIT}")
    raise InputError(
        f"{path}: is a run, which has no estimator of Dice: `attunet export {path} OUT.onnx --confidence DIR` makes one"
    )


def write_tables(folder: Path, model: Model) -> int:
    """Write a folder's tables from the files that were written with the model's label maps there, or remove them where
    there are none; gives the number of marked cases. Of several processes the last one lists the cases of all.
    """
    with waiting(folder, "writing of tables", part=".tables"):
        cases, estimator = _cases(folder, model), estimator_of(model)
        if not cases or estimator is None:
            clear_tables(folder, model.sha256)
            return 0
        content = {"schema": SCHEMA, "model_sha256": model.sha256, "learned": estimator.to_json(), "cases": cases}
        texts = (json.dumps(content, indent=1, allow_nan=False) + "\n", _table(cases, model.classes.foreground))
        for name, text in zip(TABLES, texts, strict=True):
            write_text(folder / name, text)
    return sum(bool(record.get("review")) for record in cases.values())


def _cases(folder: Path, model: Model) -> dict[str, CaseRecord]:
    """The records of a folder's label maps of a model that lie there as they were written, worst cases first."""
    cases: dict[str, CaseRecord] = {}
    for path in label_maps_of(folder, model.sha256):
        file = confidence_file(path)
        if not unchanged(path, file):
            continue
        with suppress(InputError):  # another process has just taken it away
            cases[path.relative_to(folder).with_name(stem_of(path)).as_posix()] = cast(CaseRecord, read_json(file).data)
    return dict(sorted(cases.items(), key=lambda case: (not case[1].get("review"), _poorest(case[1]), case[0])))


def _poorest(record: CaseRecord) -> float:
    return min((organ["dice"] for organ in record["organs"].values() if organ["dice"] is not None), default=1.0)


def _table(cases: dict[str, CaseRecord], names: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{name} {figure}" for name in names for figure in FIGURES]
    writer.writerow([spreadsheet_cell(cell) for cell in ("case", "review", *columns, "reasons")])
    for case, record in cases.items():
        values = [record["organs"].get(name, {}).get(figure) for name in names for figure in FIGURES]
        figures = ["" if value is None else f"{value:.3f}" for value in values]
        reasons = spreadsheet_cell("; ".join(record["reasons"]))
        review = "yes" if record["review"] else "no" if record["organs"] else "cannot tell"
        writer.writerow([spreadsheet_cell(case), review, *figures, reasons])
    return out.getvalue()
