"""The benchmark of batch norm with ReLU measures every level against a copy of the bytes that it must move."""

from attunet.benchmarks.speed.operations.measures import Settings
from attunet.benchmarks.speed.operations.norm_relu import benchmark, table


def test_every_norm_is_measured_against_a_copy_of_the_same_run() -> None:
    settings = Settings(device="cpu", width=4, size=32, batch_size=2, dtype="float32", seconds=0.01)
    results = benchmark(settings, compiled=False)
    rows = results["norms"]
    names = {(row["level"], row["mode"], row["by"]) for row in rows}
    assert names == {
        (level, mode, by)
        for level in range(5)
        for mode in ("inference", "training")
        for by in ("eager", "fused", "copy")
    }
    assert all(row["share_of_copy"] == 1 for row in rows if row["by"] == "copy")
    finest = next(row for row in rows if (row["level"], row["mode"], row["by"]) == (0, "training", "fused"))
    assert finest["bytes"] == 8 * (2 * 4 * 32 * 32) * 4  # 16 bytes an element in 16 bits, 32 in float32
    assert len(table(results).splitlines()) == 1 + len(rows)
