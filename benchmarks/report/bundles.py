"""The JavaScript of plotly and NiiVue, taken from the Python packages that carry it,
compressed for a page that fetches nothing.
"""

import base64
import gzip
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from attunet.errors import InputError
from attunet.export.web.niivue import niivue

HOW_TO_INSTALL = "pip install 'attunet[report]'"
NEEDED = ["jinja2", "plotly", "ipyniivue"]


@dataclass(frozen=True)
class Bundle:
    name: str
    version: str
    packed: str  # the source, gzip and base64
    license: str  # its text


def missing_packages() -> list[str]:
    """Packages of the extra `report` that are not installed."""
    return [package for package in NEEDED if not any(metadata.distributions(name=package))]


def load_bundles() -> list[Bundle]:
    """plotly, then NiiVue. Raises InputError where a package is missing or does not carry its bundle."""
    if absent := missing_packages():
        raise InputError(f"a report needs {', '.join(absent)}: {HOW_TO_INSTALL}")
    return list(_packed_bundles())


@cache
def _packed_bundles() -> tuple[Bundle, ...]:
    from plotly.offline import get_plotlyjs

    return (
        Bundle("plotly.js", metadata.version("plotly"), pack(get_plotlyjs().encode()), _license("plotly")),
        Bundle("NiiVue", metadata.version("ipyniivue"), pack(niivue().encode()), _license("ipyniivue")),
    )


def pack(data: bytes) -> str:
    """gzip and base64, the same for the same bytes."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def script_json(value: object) -> str:
    """JSON that may stand in a script element, whatever the names in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _license(distribution: str) -> str:
    for file in metadata.files(distribution) or []:
        if re.search(r"licen[cs]e", file.name, re.IGNORECASE) and ".dist-info" in str(file):
            return str(file.read_text(encoding="utf-8"))
    return "see the package"
