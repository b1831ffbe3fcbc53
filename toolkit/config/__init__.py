"""Configuration of a data set and a training: frozen dataclasses, read from TOML,
every field checked and documented here.

`prepare` resolves the `auto` values of `[data]` into a `Preprocessing`, the start of a training those of the other
sections into a `ResolvedConfig`, which is written out in the run's `config.toml`.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from attunet.config.data_section import DataConfig
from attunet.config.section import Section
from attunet.config.training_sections import (
    MODELS,
    AugmentConfig,
    ModelConfig,
    OptimConfig,
    ResolvedModelConfig,
    ResolvedOptimConfig,
    RunConfig,
)
from attunet.errors import InputError
from attunet.system.atomic_files import require_regular

__all__ = [
    "MODELS",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "ResolvedConfig",
    "ResolvedModelConfig",
    "ResolvedOptimConfig",
    "RunConfig",
    "load_config",
]

MAX_BYTES = 65_536  # of a TOML file
MAX_DOTS = 200  # in a line: a dotted key takes memory with the square of its length


@dataclass(frozen=True)
class Config:
    """All sections. Every field has a default, so that a file names only what it changes.

    Args:
        data: preprocessing, resolved by `prepare`.
        model: the network.
        augment: random changes of training samples.
        optim: optimiser, loss and length of the training.
        run: device, precision, loaders, checkpoints and trackers of a training.

    Example:
        >>> Config(optim=OptimConfig(epochs=20)).optim.epochs
        20.0
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    @property
    def automatic(self) -> list[str]:
        """`section.field` of the fields that `resolve` would replace."""
        sections = {"model": vars(self.model), "optim": vars(self.optim)}
        return [f"{section}.{name}" for section, v in sections.items() for name, value in v.items() if value == "auto"]

    def to_json(self) -> dict[str, dict[str, object]]:
        """Convert the configuration to JSON values.

        Returns:
            Section -> field -> value.
        """
        sections: dict[str, dict[str, object]] = dataclasses.asdict(self)
        return {
            section: {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
            for section, fields in sections.items()
        }

    def to_toml(self) -> str:
        """Write every field as TOML.

        Returns:
            The text of a file that `load_config` reads.
        """
        # Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
        sections = (
            "\n".join([f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items())])
            for section, fields in self.to_json().items()
        )
        return "\n\n".join(sections) + "\n"

    def resolve(
        self, *, base_width: int, epochs: float, batch_size: int, schedule: str = "one_cycle"
    ) -> "ResolvedConfig":
        """Replace "auto" by values.

        Args:
            base_width: channels of the network's finest level.
            epochs: passes over the training slices.
            batch_size: slices of a step.
            schedule: of the learning rate.

        Returns:
            The configuration of a training. A field that is no "auto" keeps its value.
        """
        width, steps = {"base_width": base_width}, {"epochs": epochs, "batch_size": batch_size, "schedule": schedule}
        return ResolvedConfig(
            data=self.data,
            augment=self.augment,
            run=self.run,
            model=ResolvedModelConfig(**_without_auto(self.model, width)),
            optim=ResolvedOptimConfig(**_without_auto(self.optim, steps)),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, object], where: str = "config") -> Self:
        """Read the result of `to_json`.

        Args:
            data: section -> field -> value.
            where: file or object that messages name.

        Returns:
            The configuration; sections and fields that are missing have their defaults.

        Raises:
            InputError: names the field, the rule and the value.
        """
        sections = {f.name: f.type for f in dataclasses.fields(cls)}
        made: dict[str, Any] = {}
        for name, values in data.items():
            section = sections.get(name)
            if not isinstance(section, type) or not issubclass(section, Section) or not isinstance(values, Mapping):
                raise InputError(f"{where}: sections are {', '.join(f'[{s}]' for s in sections)}, got {name!r}")
            known = [f.name for f in dataclasses.fields(section)]
            if unknown := sorted(set(values) - set(known)):
                raise InputError(f"{where}: [{name}] has no field {unknown[0]!r}; it has {', '.join(known)}")
            if missing := sorted(_required(section) - set(values)):
                raise InputError(f"{where}: [{name}] must have the field {missing[0]}")
            try:
                made[name] = section(**values)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        if missing := sorted(_required(cls) - set(made)):
            raise InputError(f"{where}: must have the section [{missing[0]}]")
        return cls(**made)


def _required(kind: type[Section] | type[Config]) -> set[str]:
    without = (f for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING)
    return {f.name for f in without}


def _without_auto(section: Section, values: Mapping[str, object]) -> dict[str, Any]:
    """The fields of a section, with these values where they are "auto"."""
    return {name: values.get(name, value) if value == "auto" else value for name, value in vars(section).items()}


@dataclass(frozen=True)
class ResolvedConfig(Config):
    """The configuration of a training: no width, epochs, batch size or schedule is "auto"."""

    model: ResolvedModelConfig = field(kw_only=True)
    optim: ResolvedOptimConfig = field(kw_only=True)


def load_config(path: str | Path | None, settings: Iterable[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: a TOML file; None for the defaults.
        settings: texts `section.field=value`, each of which sets one field.

    Raises:
        InputError: names the file, the field, the rule and the value.
    """
    data: dict[str, object] = {}
    if path is not None:
        try:
            require_regular(Path(path))
            if (size := Path(path).stat().st_size) > MAX_BYTES:
                raise ValueError(f"must have at most {MAX_BYTES:,} bytes, got {size:,}")
            text = Path(path).read_text(encoding="utf-8")
            if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
                raise ValueError(f"must have at most {MAX_DOTS} dots in a line")
            data = tomllib.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read as TOML: {error}") from None
    config = Config.from_json(data, str(path))
    for setting in settings:
        name, equals, text = setting.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot):
            raise InputError(f"--set: must be section.field=value, got {setting!r}")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except (ValueError, RecursionError):
            value = text.strip()  # a bare word is a string
        values = config.to_json()
        values.setdefault(section, {})[key] = value
        config = Config.from_json(values, "--set")
    return config
