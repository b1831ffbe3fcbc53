"""Everything worth knowing of a GPU in one command:
`python -m attunet.benchmarks.speed.gpu OUT [--source FOLDER] [--minutes 8]`.

Steps run in order of worth, each in a process of its own with a time limit, so that a step that hangs or fails costs no
other. Each writes its JSON into OUT when it is finished, and OUT/gpu.md is written again after each. It needs torch,
accelerate, onnx, onnxruntime-gpu and their companions (the extra `train`), and `attunet` on the path; no network.
`--rehearse` runs every step in miniature on any machine.
"""

import sys
from pathlib import Path

import torch

from attunet.benchmarks.program import program_parser
from attunet.benchmarks.speed.gpu.run import run_steps, summary
from attunet.benchmarks.speed.gpu.steps import steps_of


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument(
        "--source", type=Path, metavar="FOLDER", help="labelled cases, to train and judge both networks on"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all steps, 8 by default")
    parser.add_argument("--rehearse", action="store_true", help="every step in miniature, on the CPU")
    arguments = parser.parse_args()
    if not (arguments.rehearse or torch.cuda.is_available()):
        print("error: torch finds no CUDA device; --rehearse runs every step in miniature without one", file=sys.stderr)
        sys.exit(2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    steps = steps_of(arguments.out, rehearse=arguments.rehearse, source=arguments.source)
    outcomes = run_steps(steps, arguments.out, arguments.minutes)
    print(summary(outcomes))
    print(f"written to {arguments.out / 'gpu.md'}")
    sys.exit(0 if all(outcome.state == "done" for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
