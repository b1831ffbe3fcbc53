"""Networks of two levels in place of four, whose trace takes seconds more."""

from collections.abc import Iterator
from functools import partial

import pytest

from attunet.config import ModelConfig


@pytest.fixture(scope="module", autouse=True)
def two_levels() -> Iterator[None]:
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attunet.benchmarks.speed.inference.forms.ModelConfig", partial(ModelConfig, depth=2))
        yield
