"""Weights & Biases, where it is asked for; metrics.jsonl has everything anyway."""

import secrets
from pathlib import Path
from typing import Any

from attunet.config import Config
from attunet.errors import InputError


class Tracker:
    """Sends figures to the tracker in the config, or nowhere. W&B's offline mode works: set WANDB_MODE=offline."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._run: Any = None
        if config.run.tracker == "wandb":
            try:
                import wandb
            except ImportError:
                raise InputError('run.tracker: "wandb" needs the package wandb: pip install "attunet[train]"') from None
            known = folder / "tracker-id"  # a resumed training goes on in the same chart
            if not known.exists():
                known.write_text(secrets.token_hex(8), encoding="utf-8")
            self._run = wandb.init(
                project=config.run.project,
                name=folder.name,
                dir=str(folder),
                config=config.to_json(),
                id=known.read_text(encoding="utf-8"),
                resume="allow",
            )

    def log(self, step: int, figures: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.log(figures, step=step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
