"""The benchmark of the gate measures what it says, on a network small enough for a test."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attunet.benchmarks.speed.operations.gate import (
    benchmark,
    draw,
    expected_saving_bytes,
    main,
    measure_memory,
    table,
)
from attunet.benchmarks.speed.operations.measures import Settings, peak_bytes

SETTINGS = Settings(device="cpu", width=4, size=64, batch_size=4, dtype="float32", seconds=0.02)


@pytest.fixture(scope="module")
def results() -> dict:
    return benchmark(SETTINGS, compiled=False, network=True)


def test_every_gate_is_measured_against_a_copy_of_the_same_run(results: dict) -> None:
    rows = results["gates"]
    names = {(row["level"], row["mode"], row["by"]) for row in rows}
    assert names == {
        (level, mode, by)
        for level in range(4)
        for mode in ("inference", "training")
        for by in ("eager", "fused", "copy")
    }
    for row in rows:
        assert row["ms_p20"] <= row["ms_p50"] <= row["ms_p80"]
        assert row["share_of_copy"] == 1 or row["by"] != "copy"
    top = next(row for row in rows if (row["level"], row["mode"], row["by"]) == (0, "inference", "fused"))
    assert top["bytes"] == 2 * (2 * 4 * 64 * 64 * 4) * 4  # x and g read, the output written, in float32


def test_the_saving_of_memory_is_the_one_worked_out_by_hand(results: dict) -> None:
    # Bytes, slices, pixels, hidden features and alpha
    by_hand = 4 * 4 * (64 * 64 * 3 + 32 * 32 * 5 + 16 * 16 * 9 + 8 * 8 * 17)
    assert expected_saving_bytes(SETTINGS) == by_hand
    memory = results["memory"]
    assert round(1e6 * memory["held_saving_mb"]) == by_hand
    assert memory["peak_saving_mb"] == pytest.approx(memory["expected_saving_mb"], rel=0.02)


def test_under_autocast_16_bit_copies_of_the_weights_are_saved_too() -> None:
    settings = replace(SETTINGS, width=8, size=32, batch_size=1, dtype="bfloat16")
    assert round(1e6 * measure_memory(settings)["held_saving_mb"]) == expected_saving_bytes(settings)


def test_peak_bytes_counts_what_is_held_at_once() -> None:
    def call() -> None:
        first = torch.empty(2**18)
        del first
        torch.empty(2**17), torch.empty(2**18)

    assert peak_bytes(call, "cpu") == 4 * (2**17 + 2**18)


def test_table_and_plot(results: dict, tmp_path: Path) -> None:
    text = table(results)
    assert "4 at 64²" in text
    assert "whole network" in text
    assert "by hand" in text
    draw(results, tmp_path / "gate.png")
    assert (tmp_path / "gate.png").stat().st_size > 5000


def test_the_command_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--device=cpu", "--width=4", "--size=16", "--seconds=0.01", "--no-compile", "--no-network"]
    monkeypatch.setattr(sys, "argv", ["gate", *small, "--json", str(tmp_path / "gate.json")])
    main()
    written = json.loads((tmp_path / "gate.json").read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == written
    assert written["settings"]["fused_backend"] == "cpu"
    assert written["memory"] is None


def test_a_size_that_does_not_fit_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gate", "--size", "40"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --size: must be a multiple of 16, got 40\n"
