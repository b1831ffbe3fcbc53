"""The log of a process of a run whose names are hidden has none of an earlier start without numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attunet.training.processes.rank_log import RankLog


def hide(text: str) -> str:
    return text.replace("SMITHERS", "0001")


@pytest.mark.parametrize(
    ("hide_names", "has_checkpoint", "left"),
    [(hide, False, {0, 1, "mine"}), (str, False, {0, 1, 2, "mine"}), (hide, True, {0, 1, 2, "mine"})],
)
def test_logs_of_more_processes_go_with_the_names_in_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hide_names: Callable[[str], str],
    *,
    has_checkpoint: bool,
    left: set[object],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "logs").mkdir()
    for rank in (0, 1, 2, "mine"):
        (tmp_path / f"logs/rank-{rank}.log").write_text("SMITHERS")
    if has_checkpoint:
        (tmp_path / "checkpoints/step-0000000001").mkdir(parents=True)
    with RankLog(tmp_path, 0, hide_names) as log:
        log.write("begins")
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {f"rank-{rank}.log" for rank in left}
    kept = (tmp_path / "logs/rank-0.log").read_text()
    assert kept.startswith("SMITHERS") == (len(left) == 4)
