"""Fuzzing of every form of file for a given time: with changes drawn by hypothesis,
and guided by coverage with atheris.
"""

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

from promises import Result  # type: ignore[import-not-found]

HERE = Path(__file__).parent
START_S = 20  # a process of atheris instruments the code first
MIN_S = 5.0  # of a form under atheris; with less time for all, some forms are left out
KEPT = ("crash-", "timeout-", "oom-")  # names of inputs that atheris keeps
EXAMPLES = 1000  # of all forms together in one round of hypothesis


def drawn_changes(seconds: float) -> Result:
    """Rounds over all forms with changes that hypothesis draws, until the time is over; the first form has its turn."""
    fuzz = _module(HERE.parent / "toolkit/io/test_fuzz_readers.py")
    result, began, number = Result("fuzz", "drawn changes"), time.monotonic(), 0
    while number == 0 or time.monotonic() - began < seconds:
        for form in fuzz.FORMATS:
            if result.tries and time.monotonic() - began > seconds:
                break
            examples = EXAMPLES * (number + 1)
            try:
                fuzz.fuzz(form, examples, number)
            except Exception as error:  # a find is whatever is not the project's own error
                result.finds.append(f"{form}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            result.tries += max(10, round(examples * fuzz.FORMATS[form][3]))
        number += 1
    result.seconds = time.monotonic() - began
    return result


def guided_by_coverage(seconds: float, out: Path, first: int = 0) -> Result:
    """Every form in turn, in a process of its own.

    Args:
        seconds: for all of them.
        out: a folder for each form with what was found; the corpus that reached new code is used again by the next
            call.
        first: number of the form to begin with, since not all may get their turn.
    """
    result, began = Result("fuzz", "guided by coverage"), time.monotonic()
    if importlib.util.find_spec("atheris") is None:
        result.note = "left out: atheris is not installed"
        return result
    if seconds < MIN_S:
        result.note = "left out: there is no time for a form"
        return result
    forms = list(_module(HERE.parent / "hostile/forms.py").FORMS)
    forms = forms[first % len(forms) :] + forms[: first % len(forms)]
    each = max(MIN_S, seconds / len(forms) - START_S)
    for number, form in enumerate(forms):
        if number and time.monotonic() - began + each + START_S > seconds:
            result.note = f"{number} of {len(forms)} forms, from {forms[0]}"
            break
        folder = out / re.sub(r"[^a-z0-9]+", "-", form.lower())
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(HERE / "fuzz_form.py"), form, str(each), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        units = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        result.tries += int(units[1]) if units else 0
        if done.returncode:
            (folder / "log").write_text(done.stdout + done.stderr, encoding="utf-8")
            kept = [path.name for path in folder.iterdir() if path.name.startswith(KEPT)]
            result.finds.append(f"{form}: {', '.join(kept) or 'no input was kept'}, see {folder / 'log'}")
    result.seconds = time.monotonic() - began
    return result


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
