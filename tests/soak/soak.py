"""Everything that takes long, in one table: `make soak`. SOAK_MINUTES is the time for all of it, 80 by default;
3 is a rehearsal.

Exit code 1 if a promise was broken; the finds are listed below the table.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from disturbances import disturb  # type: ignore[import-not-found]
from fuzzing import drawn_changes, guided_by_coverage  # type: ignore[import-not-found]
from leaks import leaks  # type: ignore[import-not-found]
from promises import Result  # type: ignore[import-not-found]
from workplace import Workplace  # type: ignore[import-not-found]

from attunet.benchmarks.evaluation.results_table import aligned

WHOLE_MINUTES = 80.0
SHARES = {  # of the time; leaks are counted in tries and take about a twentieth
    "kills": 0.11,
    "full disks": 0.14,
    "read-only disks": 0.02,
    "two at once": 0.08,
    "drawn changes": 0.05,
    "guided by coverage": 0.13,
    "faults": 0.04,
    "tests": 0.42,
}
FAULTS = ("tests/toolkit/training/test_faults.py",)  # a dead rank, one that hangs, a disk that fills up or is read-only
LONG_TESTS_FROM = 60.0  # minutes; the tests marked soak do not scale


def rows(minutes: float, build: Path) -> Iterator[Result]:
    """The parts, one after the other."""
    seconds = {part: 60 * minutes * share for part, share in SHARES.items()}
    with tempfile.TemporaryDirectory(prefix="attunet-soak-") as folder:
        place = Workplace(Path(folder))
        for part in ("kills", "full disks", "read-only disks", "two at once"):
            yield from disturb(place, part, seconds[part])
        yield from leaks(Path(folder), minutes / WHOLE_MINUTES)
    yield drawn_changes(seconds["drawn changes"])
    yield guided_by_coverage(seconds["guided by coverage"], build / "fuzz", first=int(time.time() // 3600))
    for part, subject, chosen in (("faults", "ranks and disks", FAULTS), ("tests", "marked soak", ("-m", "soak"))):
        yield (
            tests(part, subject, chosen, seconds[part])
            if minutes >= LONG_TESTS_FROM
            else Result(part, subject, note="left out: they do not scale")
        )


def tests(part: str, subject: str, chosen: Sequence[str], seconds: float) -> Result:
    """Tests that options of pytest choose, until the time is over."""
    result, began = Result(part, subject), time.monotonic()
    command = [sys.executable, "-m", "pytest", *chosen, "-v", "-p", "no:cacheprovider"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False).stdout
    except subprocess.TimeoutExpired as late:
        printed, result.note = (
            (late.stdout or b"").decode(errors="replace"),
            f"stopped after {seconds / 60:.0f} minutes",
        )
    ended = re.findall(r"^(tests/\S+.*?) (PASSED|FAILED|ERROR)", printed, flags=re.MULTILINE)
    result.tries, result.finds = len(ended), [name for name, outcome in ended if outcome != "PASSED"]
    result.seconds = time.monotonic() - began
    return result


def main() -> None:
    minutes, began, results = float(os.environ.get("SOAK_MINUTES", WHOLE_MINUTES)), time.monotonic(), []
    for result in rows(minutes, Path("build/soak")):
        results.append(result)
        print(
            f"{result.part}, {result.subject}: {result.tries} tries",
            *result.finds,
            sep="\n  ",
            file=sys.stderr,
            flush=True,
        )
    table = [["part", "of", "tries", "finds", "minutes", "note"]]
    table += [[r.part, r.subject, str(r.tries), str(len(r.finds)), f"{r.seconds / 60:.1f}", r.note] for r in results]
    print(aligned(table))
    print(f"{(time.monotonic() - began) / 60:.0f} minutes in all")
    finds = [f"{result.part}, {result.subject}: {find}" for result in results for find in result.finds]
    sys.exit("\n".join(finds) if finds else 0)


if __name__ == "__main__":
    main()
