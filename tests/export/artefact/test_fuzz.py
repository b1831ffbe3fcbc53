"""Damaged and hostile artefacts: whatever the bytes, only the project's own errors come out, and the process lives."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attunet.errors import InputError, RunError
from attunet.export.artefact.artefact_file import KEY, write_artefact
from attunet.export.artefact.card import card
from attunet.export.artefact.onnx_file import check_file
from attunet.export.runtime.segmenter import Segmenter

NUMBERS, TEXTS = [None, True, -1, 0, 2**70, 1e308], ["", "x" * 300, "\x1b[31m\n", "NaN"]
STRANGE = [*NUMBERS, *TEXTS, [], {}, [[[]]], [1, 2, 3, 4], {"a": {"b": []}}, ["LPS"]]


class Values(dict):
    """Any JSON in place of metadata; `write_artefact` hashes it like its own."""

    def to_json(self):
        return dict(self)


def _truncated(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(len(data))]


def _flipped(data: bytes, random: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    (start, end), *_ = check_file(data, KEY, "")[0]
    for _ in range(random.integers(1, 9)):
        # the graph's structure, the metadata and the ends are small beside the weights: aim at them too
        low, high = [(0, len(data)), (0, 4000), (start - 20, end), (len(data) - 50, len(data))][random.integers(4)]
        damaged[random.integers(low, high)] ^= 1 << random.integers(8)
    return bytes(damaged)


def _changed_metadata(graph: bytes, values: dict, random: np.random.Generator) -> bytes:
    """One to three fields, at any depth, removed or replaced by something strange, then hashed again."""
    values = json.loads(json.dumps(values))
    for _ in range(random.integers(1, 4)):
        place = values
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[random.integers(len(keys))]
            if isinstance(place[key], dict | list) and place[key] and random.random() < 0.7:
                place = place[key]
                continue
            if random.random() < 0.3:
                del place[key]
            else:
                place[key] = STRANGE[random.integers(len(STRANGE))]
            break
    return write_artefact(graph, Values(values))


@pytest.mark.parametrize("tries", [150, pytest.param(1500, marks=pytest.mark.soak)])
def test_fuzzed_artefacts_raise_the_projects_own_errors_alone(tmp_path, graph, artefact, metadata, tries):
    random = np.random.default_rng(0)
    data, refusals = artefact.read_bytes(), []
    path = tmp_path / "fuzzed.onnx"
    slices = np.ones((1, 1, 16, 16), np.float32)
    for number in range(tries):
        kind = number % 3
        if kind == 0:
            fuzzed = _truncated(data, random)
        elif kind == 1:
            fuzzed = _flipped(data, random)
        else:
            fuzzed = _changed_metadata(graph, metadata.to_json(), random)
        path.write_bytes(fuzzed)
        try:
            card(path)
            segmenter = Segmenter(path, num_threads=1)
            segmenter.logits(slices)
        except (InputError, RunError) as error:
            refusals.append(str(error))
        else:
            assert kind == 2 or fuzzed == data, "truncations and flipped bytes must all be noticed"
    assert len(refusals) > 0.8 * tries
    assert all(text.isprintable() for text in refusals), "one line, and nothing that steers a terminal"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_judged_without_another_error(data):
    with contextlib.suppress(InputError):
        check_file(data, KEY, "model.onnx")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"schema":1,"a":' + "[" * 990 + "]" * 990 + "}", '{"schema":' + "9" * 5000 + "}", "\ud800"]
)
def test_json_made_to_break_readers_is_an_input_error(tmp_path, graph, text):
    from attunet.export.artefact.onnx_file import with_metadata

    path = tmp_path / "model.onnx"
    path.write_bytes(with_metadata(graph, KEY, text.encode("utf-8", "surrogatepass")))
    with pytest.raises(InputError):
        Segmenter(path)
