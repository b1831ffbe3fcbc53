"""The automatic settings on data that nobody tuned them for: `auto` against the best of a small search.

`python -m attunet.benchmarks.accuracy.untuned OUT` trains, on each generated data set of
`attunet.benchmarks.accuracy.stand_ins`, a network with the automatic settings, and one with each of the changes in
`CHANGES`, and judges all on the cases that fold 0 leaves out, on their own grid after finishing. The changes were fixed
before anything was measured. The aim is that `auto` reaches 95 % of the best mean Dice. OUT/results.json is written
after every training, and the same call does what is left.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from attunet.benchmarks.accuracy.stand_ins import STAND_INS, write_stand_in
from attunet.benchmarks.evaluation.results_table import Json, number, table
from attunet.benchmarks.program import add_settings, make_once, program_parser, require_same_call, running
from attunet.preparation.prepare import prepare
from attunet.presets import read_config
from attunet.runs.run_folder import read_metrics
from attunet.store import Store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.training.loop import train

logger = logging.getLogger(__name__)

AUTO = "auto"
WHOLE = "whole slices"  # instead of the smallest window that holds the labels
CHANGES: dict[str, tuple[str, ...]] = {
    AUTO: (),
    "half the rate": ("optim.lr=0.00075",),
    "twice the rate": ("optim.lr=0.003",),
    "no augmentation": ("augment.enabled=false",),
    "weights by frequency": ("optim.class_weights=inverse_frequency",),
    "U-Net": ("model.name=unet",),
    WHOLE: (),
}


def compare(out: Path, names: Sequence[str], settings: Sequence[str]) -> list[Json]:
    """Trains what is left of the data sets; gives all rows of results.json, with the mean Dice of the cases left out.
    Raises InputError where an earlier call had other settings.
    """
    file = out / "results.json"
    require_same_call(out / "call.json", {"settings": list(settings)})
    rows: list[Json] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    for name in names:
        for change in CHANGES:
            if any((row["data"], row["change"]) == (name, change) for row in rows):
                continue
            store = _store(name, out / name.replace(" ", "-"), whole=change == WHOLE)
            if store is None:  # the automatic window is the whole slice
                continue
            began = time.monotonic()
            dice = _dice_of_training(store, store.path.parent / f"run-{change.replace(' ', '-')}", change, settings)
            minutes = (time.monotonic() - began) / 60
            rows.append({"data": name, "change": change, "dice": dice, "minutes": round(minutes, 2)})
            logger.info(f"{name}, {change}: Dice {dice:.4f}, {minutes:.1f} minutes")
            about = {"environment": environment(), "settings": list(settings), "rows": rows}
            write_text(file, json.dumps(about, indent=1, allow_nan=False) + "\n")
    return rows


def _store(name: str, folder: Path, *, whole: bool) -> Store | None:
    """The data set's store, with the automatic window or with whole slices; None where these are the same."""
    make_once(folder / "source", partial(write_stand_in, name))
    store = _prepared(folder, "store", ())
    if not whole:
        return store
    plane = [axis for axis in range(3) if axis != store.spec.slice_axis]
    pixel = store.spec.spacing_mm  # None: pixels of pictures are kept
    scales = [1 if pixel is None else spacing / pixel for spacing in store.cases[0].spacing]
    needed = max(case.native_shape[axis] * scales[axis] for case in store.cases for axis in plane)
    size = 32 * -(-round(needed) // 32)
    return None if size <= min(store.spec.size) else _prepared(folder, "whole", (f"data.size={size}",))


def _prepared(folder: Path, name: str, settings: tuple[str, ...]) -> Store:
    return prepare(folder / "source", folder / name, read_config(None, settings).data, folds=4)


def _dice_of_training(store: Store, run: Path, change: str, settings: Sequence[str]) -> float:
    """Mean Dice of the cases left out, which a training judges at its end."""
    train(store.path, run, read_config(None, (*settings, *CHANGES[change])), fold=0, resume="auto")
    return next(row["dice"]["mean"] or 0.0 for row in read_metrics(run) if row["event"] == "native")


def markdown(rows: Sequence[Json]) -> str:
    """A Markdown table: a row for each data set."""
    cells = []
    for name in dict.fromkeys(row["data"] for row in rows):
        dice = {row["change"]: row["dice"] for row in rows if row["data"] == name}
        share = dice[AUTO] / (max(dice.values()) or 1) if AUTO in dice else None
        figures = [number(dice.get(change)) for change in CHANGES]
        cells.append([name, STAND_INS[name].like, *figures, number(share)])
    return table(["data", "like", *CHANGES, "auto / best"], cells)


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", choices=list(STAND_INS), action="append", help="all by default")
    add_settings(parser, "of all trainings")
    arguments = parser.parse_args()
    with running(sys.stdout):
        rows = compare(arguments.out, arguments.data or list(STAND_INS), arguments.settings)
    print(markdown(rows))


if __name__ == "__main__":
    main()
