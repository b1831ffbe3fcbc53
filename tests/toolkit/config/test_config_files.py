"""Configuration files of strangers: one line for each, without waiting and without taking memory."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attunet.config import Config, ResolvedConfig, load_config
from attunet.errors import InputError


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(
    "make",
    [
        text("a=" + "[" * 60_000),
        text("[data]\nspacing_mm=" + "9" * 5000),
        text("a." * 50_000 + "a=1"),
        text("data = 3"),
        text("[data]\nsize = 1e999"),
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
    ],
    ids=["nested", "digits", "dots", "no section", "infinite", "pipe", "folder", "device"],
)
def test_a_broken_file_is_refused_by_name(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "config.toml")
    with pytest.raises(InputError, match=r"config\.toml: ") as refused:
        load_config(tmp_path / "config.toml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("form", ["{}=1", "[{}]", "x={{ {}=1 }}"])
def test_long_dotted_keys_are_refused_before_they_are_parsed(form: str, tmp_path: Path) -> None:
    """The parser keeps each beginning of a key, in gigabytes."""
    (tmp_path / "config.toml").write_text(form.format("a." * 30_000 + "a"))
    with pytest.raises(InputError, match="must have at most 200 dots in a line"):
        load_config(tmp_path / "config.toml")


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "F" * 9000, "[" * 10_000, "nan", "{a=1}"])
def test_a_broken_setting_is_refused(value: str) -> None:
    with pytest.raises(InputError):
        load_config(None, [f"data.spacing_mm={value}"])


@pytest.mark.parametrize(
    ("section", "field", "rule"),
    [
        ("optim", None, r"^state\.json: must have the section \[optim\]$"),
        ("model", "base_width", r"^state\.json: \[model\] must have the field base_width$"),
        ("optim", "epochs", r"^state\.json: \[optim\] must have the field epochs$"),
    ],
)
def test_a_resolved_configuration_without_a_value_is_refused(section: str, field: str | None, rule: str) -> None:
    """A checkpoint's state may be a stranger's."""
    data = Config().resolve(base_width=4, epochs=1, batch_size=2).to_json()
    assert ResolvedConfig.from_json(data, "state.json").to_json() == data
    if field is None:
        del data[section]
    else:
        del data[section][field]
    with pytest.raises(InputError, match=rule):
        ResolvedConfig.from_json(data, "state.json")
