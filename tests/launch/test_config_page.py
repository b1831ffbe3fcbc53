from pathlib import Path

from attunet.config import Config, load_config
from attunet.launch.config_page import page
from attunet.presets import PRESETS, preset_names

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_in_the_docs_is_up_to_date() -> None:
    written = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert written == page(), "write it again: python -m attunet.launch.config_page > docs/configuration.md"


def test_the_page_has_every_field_and_every_preset() -> None:
    text = page()
    for section, fields in Config().to_json().items():
        for field in fields:
            assert f"| `{section}.{field}` |" in text
    assert all(f"### {name}\n" in text for name in preset_names())


def test_every_preset_is_a_valid_configuration() -> None:
    assert {"demo", "chaos-cpu", "chaos", "reference"} <= set(preset_names())
    for name in preset_names():
        load_config(PRESETS / f"{name}.toml")
