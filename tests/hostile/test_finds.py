"""Inputs that fuzzing found, each named FORM.WHAT-IT-DID: read without harm,
as every other file of that form is afterwards.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("onnx")
HERE = Path(__file__).parent
FINDS = sorted((HERE / "finds").iterdir())
sys.path.insert(0, str(HERE))

from forms import FORMS  # type: ignore[import-not-found]  # noqa: E402

READ = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from forms import FORMS
from attunet.errors import InputError
form = FORMS[sys.argv[2]]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, form.name)
    path.write_bytes(Path(sys.argv[3]).read_bytes())
    try:
        form.read(path)
    except InputError as error:
        print(error)
    path.write_bytes(form.base())
    form.read(path)
"""


def form_of(find: Path) -> str:
    slugs = {re.sub(r"[^a-z0-9]+", "-", form.lower()): form for form in FORMS}
    return slugs[find.name.partition(".")[0]]


@pytest.mark.parametrize("find", FINDS, ids=lambda find: find.name)
def test_a_find_does_no_harm(find: Path) -> None:
    assert find.stat().st_size <= 10_000
    command = [sys.executable, "-c", READ, str(HERE), form_of(find), str(find)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n") <= 1
