"""attunet and nnU-Net's 2D configuration on one fold, with the same minutes of training on the same machine.

`python -m attunet.benchmarks.accuracy.nnunet STORE OUT --fold 0 --minutes 10 --device cpu` trains attunet's recipe for
so long, then nnU-Net's own trainer with its own plans, preprocessing, network and augmentation on the same source
files. nnU-Net's schedule (1000 epochs of 250 steps) is shortened to the epochs that fit: of 250 steps where 50 of
those fit, else at most 50 shorter ones; a first epoch of a few steps measures that. Preparation, planning and
preprocessing are not counted, compilation is. Both are judged on the cases that the fold leaves out, by Dice on the
native grid, as `attunet crossvalidate` does; attunet's label maps are finished as `prepare` decided, nnU-Net's are as
it gives them. OUT/nnunet-foldN.json has every case, OUT/nnunet-foldN.log what nnU-Net prints. It needs `nnunetv2`,
whose folders are temporary.
"""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from attunet.benchmarks.accuracy.arms import RECIPE
from attunet.benchmarks.accuracy.results import confusion_of, judge, table_by_organ
from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.nnunet.raw_data import image_files, write_raw
from attunet.benchmarks.nnunet.trainer import PACKAGE, make_predictor, make_trainer, set_environment
from attunet.benchmarks.nnunet.training import train_for
from attunet.benchmarks.program import add_settings, program_parser, require_same_call, running
from attunet.errors import InputError
from attunet.evaluate_case import LabelledCase, read_labelled_case
from attunet.export.load_model import load_model
from attunet.fields import JsonObject
from attunet.presets import read_config
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder
from attunet.system.workers import usable_cores
from attunet.training.loop import train

logger = logging.getLogger(__name__)


def compare(store: Store, out: Path, *, fold: int, minutes: float, device: str, settings: Sequence[str]) -> Json:
    """Trains and judges both; gives the rows of the cases and facts of nnU-Net's training. Raises InputError if
    `nnunetv2` is not installed, or a case has classes that were not drawn.

    Example:
        >>> compare(store, Path("out"), fold=0, minutes=10, device="cpu", settings=[])  # doctest: +SKIP
    """
    if find_spec(PACKAGE) is None:
        raise InputError(f"{PACKAGE} is not installed (pip install {PACKAGE})")
    require_same_call(out / "call.json", {"store": store.sha256, "minutes": minutes})  # resumed, a run keeps its own
    run, chosen = out / f"attunet-fold{fold}", (*settings, f"run.device={device}", f"run.minutes={minutes}")
    train(store.path, run, read_config(RECIPE, chosen), fold=fold, resume="auto")
    rows = judge({"arm": "attunet"}, store, fold, confusion_of(load_model(run, device=device)))
    log = (out / f"nnunet-fold{fold}.log").open("w", encoding="utf-8")
    with PrivateFolder() as folder, log, contextlib.redirect_stdout(log):
        facts, confusion = _nnunet(store, fold, minutes, device, folder.path)
        rows += judge({"arm": "nnU-Net 2D"}, store, fold, confusion)
    return {"environment": environment(), "minutes": minutes, "rows": rows, "nnunet": facts}


def _nnunet(
    store: Store, fold: int, minutes: float, device: str, folder: Path
) -> tuple[JsonObject, Callable[[LabelledCase], np.ndarray]]:
    """Trains nnU-Net; facts of the training, and the function that gives voxel counts of a case."""

    def read(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labelled = read_labelled_case(store, case)
        if not labelled.drawn.all():
            raise InputError(f"{case}: not every class was drawn, which nnU-Net has no labels for")
        return labelled.volume.data, labelled.truth, labelled.volume.affine

    channels = ["CT" if store.spec.normalization == "ct" else "MR"] * store.spec.in_channels
    names = write_raw(folder, store.split(fold), read, num_classes=len(store.classes), channels=channels)
    set_environment(folder, processes=min(12, usable_cores()))
    began = time.monotonic()
    trainer, _ = make_trainer(folder, torch.device(device), batch_size=None, finish=logger.info)
    preparation_s = time.monotonic() - began
    facts = train_for(trainer, minutes) | {"preparation_s": preparation_s}
    predictor = make_predictor(trainer)
    reader = trainer.plans_manager.image_reader_writer_class()

    def confusion(case: LabelledCase) -> np.ndarray:
        files = image_files(folder, names[case.name], len(channels))
        image, properties = reader.read_images(list(map(str, files)))
        return case.confusion(predictor.predict_single_npy_array(image, properties).transpose(2, 1, 0))

    return facts, confusion


def table(results: Json) -> str:
    return table_by_organ(results["rows"], {"training": "{arm}", "case": "{case}", "Dice": "{mean:.4f}"}, "dice")


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, help="the store's source files, if they moved")
    parser.add_argument("--fold", type=int, default=0, help="whose cases are left out")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    add_settings(parser)
    options = vars(parser.parse_args())
    out = options.pop("out")
    with running(sys.stdout):
        store = open_store(options.pop("store"), source=options.pop("source"))
        results = compare(store, out, **options)
    file = out / f"nnunet-fold{options['fold']}.json"
    write_text(file, json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
