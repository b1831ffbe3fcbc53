"""Pictures as users get them, unlike those of other tests."""

import pytest


@pytest.fixture(autouse=True)
def _whole_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib draws the pictures")
    monkeypatch.setattr("attunet.plots.figure.Figure", figure.Figure)
