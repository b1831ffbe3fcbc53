"""The named configurations that come with the package, and the reading of a preset or a TOML file."""

import dataclasses
from pathlib import Path

from attunet.config import Config, load_config
from attunet.errors import InputError

PRESETS = Path(__file__).parent


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_config(name: str | None, settings: tuple[str, ...] = ()) -> Config:
    """Read the configuration of a preset or of a TOML file.

    Args:
        name: a preset or the path of a TOML file; None for the defaults.
        settings: texts `section.field=value`, each of which sets one field after the file is read.

    Returns:
        The configuration; fields that are set nowhere have their defaults.

    Raises:
        InputError: names the file, the field, the rule and the value.
    """
    path = None
    if name is not None:
        path = PRESETS / f"{name}.toml" if name in preset_names() else Path(name)
        if not path.exists():
            raise InputError(
                f"--config: must be a TOML file or one of the presets {', '.join(preset_names())}, got {name!r}"
            )
    return load_config(path, settings)


def training_config(config_name: str | None, settings: tuple[str, ...], model: str | None) -> Config:
    """The configuration that the options name; `[data]` cannot be set here."""
    for setting in settings:
        if setting.strip().startswith("data."):
            raise InputError(
                f"--set: [data] is resolved when the store is made (attunet prepare --set ...), got {setting!r}"
            )
    config = read_config(config_name, settings)
    return config if model is None else with_model(config, model)


def with_model(config: Config, name: str) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, name=name))
