"""NiiVue, which shows volumes in a page: its JavaScript, taken from the Python package that carries it."""

import re
from functools import cache
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

from attunet.errors import InputError

HOW_TO_INSTALL = "pip install 'ipyniivue>=2.4'"
# ipyniivue's widget carries NiiVue whole, as the escaped source of a module that exports it, for pages that it saves.
NIIVUE = re.compile(r'"([^"\\]*export%7B[^"\\]*Niivue[^"\\]*%7D%3B)"')


@cache
def niivue() -> str:
    """The source of a module. Raises InputError where the package is missing or does not carry it."""
    try:
        package = metadata.distribution("ipyniivue")
        widget = Path(str(package.locate_file("ipyniivue/static/widget.js"))).read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError) as error:
        raise InputError(f"ipyniivue: its bundle cannot be read: {error}; {HOW_TO_INSTALL}") from None
    match = NIIVUE.search(widget)
    if match is None:
        raise InputError(
            f"ipyniivue {package.version}: does not carry NiiVue in a form that a page can use; {HOW_TO_INSTALL} takes "
            "one that does"
        )
    return unquote(match[1])
