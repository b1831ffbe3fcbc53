"""`python -m attunet.launch.config_page > docs/configuration.md`: the page on every field of the configuration, from its declaration."""

import dataclasses
import sys
import tomllib
from typing import Any

from attunet.config import Config
from attunet.presets import PRESETS, preset_names

HEAD = """\
# Configuration

This page is written by `python -m attunet.launch.config_page`.

A configuration is a TOML file with the sections below; every field has a default, so a file names only what it changes. `--config` takes
a file or the name of a preset; `--set section.field=value` sets one field over it and may be repeated, for example
`--set optim.epochs=100 --set 'augment.scale=[0.9, 1.1]'`. An unknown field, a wrong type or an impossible value is an error that names
the field, the rule and the value.

`[data]` is settled when a store is made (`attunet prepare`), written into the store, and taken from there by every training; the other
sections belong to a training. Fields with `"auto"` are settled from the data or the machine. What a training used is in its
`config.toml`.

Without any configuration a training is sized by its data: on a CPU 16 channels, batches of 8 slices (fewer above 256 × 256) and 100 epochs,
but at least 1500 and at most 5000 steps; on a GPU 64 channels (32 where memory is short), batches of 16 per process and 2500 to 20 000
steps. A training that is continued keeps what it began with, on whatever machine.
"""

SECTIONS = {
    "data": "How volumes become slices.",
    "model": "The network.",
    "augment": "Changes made to training samples, on the device, each with its own probability. There are no mirror images: left and right "
    "kidney are different classes.",
    "optim": "Steps, learning rate and loss.",
    "run": "Seed, arithmetic, records. They do not change what is learned, but for the seed and synchronised batch norm.",
}


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for section in dataclasses.fields(Config):
        kind: Any = section.type
        rows = [
            f"| `{section.name}.{f.name}` | {_value(f.default)} | {f.metadata['rule'].words} | {f.metadata['text']} |"
            for f in dataclasses.fields(kind)
        ]
        parts.append("\n".join([f"## [{section.name}]", "", SECTIONS[section.name], "", *_head("field", "default", "accepts", ""), *rows]))
    parts.append("\n\n".join(["## Presets", *(_preset(name) for name in preset_names())]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _preset(name: str) -> str:
    """A preset's own comment, and what it changes."""
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in text.split("\n\n")[0].splitlines())
    changed = {f"{section}.{field}": value for section, fields in tomllib.loads(text).items() for field, value in fields.items()}
    rows = [f"| `{field}` | {_value(value)} |" for field, value in changed.items()]
    return "\n".join([f"### {name}", "", comment, "", *_head("field", "value"), *rows])


def _head(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(f'{v:g}' for v in value)}]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`"


if __name__ == "__main__":
    sys.stdout.write(page())
