"""Commands that are killed, that find a full disk, or that are called twice at once;
each is finished afterwards and compared.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from commands import Command  # type: ignore[import-not-found]
from promises import Result, complaint  # type: ignore[import-not-found]
from workplace import Workplace, finished, kill, started  # type: ignore[import-not-found]

PAGE = 4096
LEFT = (".partial", ".lock", ".replaced")


def kills(place: Workplace, command: Command, number: int) -> list[str]:
    """Kills a command at a random moment of its time, and goes on."""
    out, log = place.empty("out"), place.folder / "log"
    child = started([*command.arguments(out)], log)
    time.sleep(random.Random(number).uniform(0, 1.1 * place.reference(command).seconds))
    kill(child)
    finished(child, log)
    return _again(place, command, out)


def full_disk(place: Workplace, command: Command, number: int) -> list[str]:
    """Lets a command find a disk that is full after some number of pages, then one with room; a quick command's number
    of pages is the try's.
    """
    out, log = place.empty("out"), place.folder / "log"
    last = _pages(place, command)
    pages = 1 + number % last if command.is_quick else random.Random(number).randint(1, last)
    with _Disk(out, pages * PAGE) as disk:
        code, text = finished(started(command.arguments(out), log, file_limit=disk.file_limit), log)
        finds = [complaint(code, text, (0, 1, 2))]
        if code != 0 and str(out) not in text:
            finds.append(f"the error names no file: {text.strip().splitlines()[-1]}")
        finds += _half_written(place, command, out) if code != 0 else []
        disk.enlarge()
        return [f"{find} [{pages} pages]" for find in (*finds, *_again(place, command, out)) if find]


def read_only_disk(place: Workplace, command: Command, number: int) -> list[str]:
    """Lets a command find a disk on which nothing may be written, then one on which it may."""
    out, log = place.empty("out"), place.folder / "log"
    with _Disk(out, 2**28) as disk:
        arguments = command.arguments(out)
        disk.mount("ro")
        code, text = finished(started(arguments, log), log)
        finds = [complaint(code, text, (1, 2))]
        if "Read-only" not in text or str(out) not in text:
            finds.append(f"the error does not say it: {text.strip().splitlines()[-1:]}")
        disk.mount("rw")
        return [find for find in (*finds, *_again(place, command, out)) if find]


def two_at_once(place: Workplace, command: Command, number: int) -> list[str]:
    """Calls a command twice, the second a random moment after the first."""
    out, logs = place.empty("out"), [place.folder / "log-1", place.folder / "log-2"]
    first = started(command.arguments(out), logs[0])
    time.sleep(random.Random(number).uniform(0, place.reference(command).seconds))
    second = started(command.arguments(out), logs[1])
    ends = [finished(child, log) for child, log in zip((first, second), logs, strict=True)]
    finds = [complaint(code, text, (0, 2)) for code, text in ends]
    if all(code != 0 for code, _ in ends):
        finds.append(f"both were refused: {[text.strip().splitlines()[-1:] for _, text in ends]}")
    finds += [f"differs after two at once: {name}" for name in place.differences(command, out)[:3]]
    return [find for find in finds if find]


DISTURBANCES: dict[str, Callable[[Workplace, Command, int], list[str]]] = {
    "kills": kills,
    "full disks": full_disk,
    "read-only disks": read_only_disk,
    "two at once": two_at_once,
}


def disturb(place: Workplace, part: str, seconds: float) -> list[Result]:
    """One row for each command. The commands take turns until the time is over; the first has at least one try."""
    if part == "read-only disks" and not can_mount(place.folder):
        return [Result(part, "every command", note="left out: nothing can be mounted here")]
    results = [Result(part, command.name) for command in place.commands]
    end = time.monotonic() + seconds
    for index, number in _turns(place, part):
        if results[0].tries and time.monotonic() > end:
            break
        command, result = place.commands[index], results[index]
        place.reference(command)
        began = time.monotonic()
        result.finds += DISTURBANCES[part](place, command, number)
        result.tries += 1
        result.seconds += time.monotonic() - began
    return results


def _turns(place: Workplace, part: str) -> Iterator[tuple[int, int]]:
    """Indices of commands, with a number for each try. Disks of quick commands are full at every page first."""
    commands = list(enumerate(place.commands))
    if part == "full disks":
        for index, command in commands:
            yield from ((index, number) for number in range(_pages(place, command) if command.is_quick else 0))
    if part == "read-only disks":  # one is like the other
        yield from ((index, 0) for index, _ in commands)
        return
    for number in count():
        yield number % len(commands), number


def _pages(place: Workplace, command: Command) -> int:
    """Pages within which a command's disk may become full."""
    return 2 + int(1.2 * place.reference(command).size / PAGE)


def _again(place: Workplace, command: Command, out: Path) -> list[str]:
    """Calls a command again after a disturbance: it must finish, and leave what an undisturbed call leaves."""
    log = place.folder / "log"
    code, text = finished(started([*command.arguments(out), *command.again], log), log)
    finds = [complaint(code, text, (0,))] + [
        f"differs after the second call: {name}" for name in place.differences(command, out)[:3]
    ]
    finds += [f"left behind: {path.relative_to(out)}" for path in out.rglob("*") if path.name.endswith(LEFT)]
    return [find for find in finds if find]


def _half_written(place: Workplace, command: Command, out: Path) -> list[str]:
    """Files of the product that have their name and not their content;
    a folder that is made in one piece must not be there.
    """
    if not command.product:
        return []
    whole = [
        path
        for path in (out / command.product, *(out / command.product).rglob("*"))
        if path.is_file() and path.name[0] != "."
    ]
    changed = place.differences(command, out)
    return [f"half-written: {path.relative_to(out)}" for path in whole if str(path.relative_to(out)) in changed]


def can_mount(folder: Path) -> bool:
    """True where a file system can be mounted at a new folder."""
    (probe := folder / "probe").mkdir()
    with _Disk(probe, PAGE) as disk:
        return disk.file_limit is None


class _Disk:
    """A file system of a few pages at `folder`, where one can be mounted;
    elsewhere a limit on the size of every file.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.file_limit: int | None = None

    def __enter__(self) -> "_Disk":
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            self.file_limit = self.size
        return self

    def enlarge(self) -> None:
        if self.file_limit is None:
            self.mount("size=1g")

    def mount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)

    def __exit__(self, *error: object) -> None:
        if self.file_limit is None:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
