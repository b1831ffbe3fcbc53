"""Not a test: a program that trains in child processes, kills them, and lets them resume; prints one JSON line a child.

    python kill_and_resume.py STORE FOLDER CONFIG.toml MOMENT...

For each MOMENT a training in FOLDER/MOMENT is killed by SIGKILL, then resumed until it is done: a whole number is a write to the disk
that matters (fsync or rename), and it is killed just before that one; one with a point is seconds. Moment 0 is never killed. The
children are forked before PyTorch has run anything, which saves importing it for each.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from attunet.config import load_config
from attunet.training import train


def main(store: Path, folder: Path, config: Path, moments: list[str]) -> None:
    for moment in moments:
        run, seconds = folder / moment, float(moment) if "." in moment else None
        boundary = 0 if seconds else int(moment)
        codes = [in_child(lambda run=run, boundary=boundary: attempt(store, run, config, boundary), kill_after_s=seconds)]
        while codes[-1] != 0 and len(codes) < 4:
            codes.append(in_child(lambda run=run: attempt(store, run, config, 0)))
        print(json.dumps({"moment": moment, "codes": codes}), flush=True)


def attempt(store: Path, run: Path, config: Path, boundary: int) -> None:
    if boundary:
        kill_at_write(boundary)
    train(store, run, load_config(config), fold=0, resume="auto", report=lambda text: None)


def kill_at_write(boundary: int) -> None:
    left = boundary

    def counting(write):
        def wrapped(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments, **options)

        return wrapped

    os.fsync, os.rename = counting(os.fsync), counting(os.rename)


def in_child(work, kill_after_s: float | None = None) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)  # a child that is done already is a zombie still, which does not mind
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
