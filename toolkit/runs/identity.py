"""What a training is: kept in every checkpoint, compared when one is continued."""

import json
from typing import Any

from attunet.config import Config
from attunet.errors import InputError
from attunet.runs.checkpoint import Checkpoint
from attunet.store import Store
from attunet.version import __version__

# Fields that may differ between the parts of one training: none of them changes a figure.
FREE_TO_CHANGE = (
    *("device", "compile", "activation_checkpointing", "resident_gb", "tracker", "project"),
    *("log_every", "checkpoint_every_minutes", "checkpoint_every_steps", "timeout_minutes"),
)

# What a training learns from, and how an error names it.
CONTENT = {
    "preprocessing": "scans prepared in another way",
    "classes": "other classes",
    "fold": "another fold",
    "training_cases": "other training cases",
    "training_labels": "other masks of the training cases",
}


def identity(store: Store, training: list[str], held_out: list[str], fold: int | str, config: Config) -> dict[str, Any]:
    """What a checkpoint says about itself besides its tensors; JSON values only. No path or name of a source file is in it."""
    cases = {case.name: case for case in store.cases}
    facts = {
        "attunet": __version__,
        "config": config.to_json(),
        "preprocessing": store.preprocessing.to_json(),
        "classes": store.classes.to_json(),
        "ranges": store.ranges.to_json(),
        "store": str(store.path.resolve()),
        "fold": fold,
        "training_cases": {case: cases[case].image_sha256 for case in training},
        "training_labels": {case: cases[case].label_sha256 for case in training},
        "held_out": held_out,
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def check_same_training(start: Checkpoint, facts: dict[str, Any]) -> None:
    """Raises InputError naming the first thing in which the training to be continued differs from the one that was begun."""
    for section, fields in facts["config"].items():
        for name, value in fields.items():
            before = start.state["config"][section].get(name, value)  # absent: begun by a version that had no such field
            if before != value and not (section == "run" and name in FREE_TO_CHANGE):
                raise InputError(f"{start.path}: {section}.{name} was {before!r} when this run began and is now {value!r}; keep the value")
    for name, words in CONTENT.items():
        if start.state.get(name, facts[name]) != facts[name]:
            raise InputError(f"{start.path}: this run began with {words}; continue with the same store and fold")
