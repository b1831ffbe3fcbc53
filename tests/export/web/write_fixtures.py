"""Results of the Python side for small inputs, as JSON for the page's own tests: run this file after a change.

    python tests/export/web/write_fixtures.py

`test_fixtures.py` fails where the committed JSON differs from the results.
"""

import json
import sys
from pathlib import Path
from typing import Any

from file_fixtures import dicoms, niftis, wrong_files, wrong_series
from fixture_inputs import packed, refused
from step_fixtures import SPEC, finishings, orientations, preparations, resizes, scalings, warnings

from attunet.classes import CHAOS_MR
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import load_artefact, write_artefact
from attunet.volumes.spec import Preprocessing

OUT = Path(__file__).parents[3] / "export/web/test/fixtures.json"
MODEL = b"\x08\x0a\x3a\x00"  # ir_version 10 and an empty graph: a whole ONNX model, if a poor one


def artefacts() -> dict[str, Any]:
    """An intact one, and damaged ones with the lines of the command line."""
    about = Artefact(
        name="small", precision="fp32", preprocessing=Preprocessing(SPEC), classes=CHAOS_MR, num_parameters=7, fold=0
    )
    whole = write_artefact(MODEL, about)
    wrong = {
        "cut": whole[:-9],
        "changed": whole.replace(b'"name":"small"', b'"name":"smell"'),
        "foreign": MODEL,
        "twice": whole + whole[len(MODEL) :],
        "text": b"hello, this is no model",
    }
    lines = [refused(load_artefact, "model.onnx", data) for data in wrong.values()]
    rows = [{"base64": packed(data), "line": line} for data, line in zip(wrong.values(), lines, strict=True)]
    return {"whole": packed(whole), "name": about.name, "spec": about.spec.to_json(), "wrong": rows}


def fixtures() -> dict[str, Any]:
    made = {
        "resizes": resizes(),
        "orientations": orientations(),
        "scalings": scalings(),
        "preparations": preparations(),
        "finishings": finishings(),
        "warnings": warnings(),
        "artefacts": artefacts(),
        "niftis": niftis(),
        "dicoms": dicoms(),
        "wrong_series": wrong_series(),
        "wrong_files": wrong_files(),
    }
    return json.loads(json.dumps(made))


if __name__ == "__main__":
    OUT.write_text(json.dumps(fixtures(), separators=(",", ":")) + "\n", encoding="utf-8")
    sys.stdout.write(f"{OUT.name}: {OUT.stat().st_size:,} bytes\n")
