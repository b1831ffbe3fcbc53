"""Planned changes of the recipe `chaos-cpu`, each judged leave-one-out against the plain recipe,
in a few minutes of one GPU.

`python -m attunet.benchmarks.accuracy.better STORE OUT --source CASES --minutes 4 --processes 8 --device cuda` trains
both networks with two seeds on every fold (one patient left out) for each arm of `attunet.benchmarks.accuracy.arms`,
several trainings at once, and judges, on the native grid of the source files after finishing, as
`attunet crossvalidate` does: each network alone, the ensemble of both networks and seeds (four members), and the
ensemble of four snapshots along each training. The store is one that `attunet prepare --config chaos-cpu` made; its own
folds do not count.

The arms and their reasons, which stand in `arms`, were fixed before anything was measured. Arms of few scans train the
U-Net alone for 1500 steps and are tested on all scans that they did not see.

There is one planned analysis: for each arm the paired difference of mean Dice against the arm it is compared with,
averaged over networks and seeds for each case, its mean over the cases with its 95 % interval; an arm is kept where the
interval leaves out zero. The same for the ensembles of an arm against its single networks. Differences of one network
or organ are printed, and decide nothing.

OUT/results.json is written after every training, so that a run that is killed or out of time keeps its results; the
same call does what is left. The order is that of worth: the plain arm, one seed of every other arm, the next seed, and
at the end the arms that start from generated abdomens; `--arms` chooses some. `--set model.base_width=4 --set
optim.epochs=1` tries everything in miniature.
"""

import argparse
from pathlib import Path

from attunet.benchmarks.accuracy.arms import ARMS
from attunet.benchmarks.accuracy.results import table
from attunet.benchmarks.accuracy.trainings import better
from attunet.errors import InputError
from attunet.store import open_store
from attunet.system.log_lines import forward_log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="prepared with --config chaos-cpu")
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, help="the store's source files, if they moved")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", help=f"names, separated by semicolons, of: {'; '.join(arm.name for arm in ARMS)}")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.arms.split(";")] if arguments.arms else [arm.name for arm in ARMS]
    if unknown := sorted(set(names) - {arm.name for arm in ARMS}):
        parser.error(f"--arms: there is no arm {unknown[0]!r}")
    with forward_log(lambda line: print(line, flush=True)):
        try:
            store = open_store(arguments.store, source=arguments.source)
        except InputError as error:
            parser.error(str(error))
        results = better(
            store,
            arguments.out,
            arms=[arm for arm in ARMS if arm.name in names],
            minutes=arguments.minutes,
            processes=arguments.processes,
            device=arguments.device,
            seeds=arguments.seeds,
            settings=arguments.settings,
        )
    print(table(results))


if __name__ == "__main__":
    main()
