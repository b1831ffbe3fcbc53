"""The number of cores is that of the machine, the scheduler or the container, whichever is the least."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attunet.system import workers


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 8), ("max 100000", 8), ("", 8)],
)
def test_a_containers_share_of_cpu_time_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(workers, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert workers.usable_cores() == expected


def test_a_machine_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CPU_QUOTA", tmp_path / "none")
    assert workers.usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("as_file", [True, False])
def test_a_script_of_the_user_runs_once(tmp_path: Path, as_file: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('begins')\n"
        "import os\n"
        "from attunet.system import workers\n"
        "workers.usable_cores = lambda: 2\n"
        "print(sorted(set(workers.over_cases(os.path.basename, [f'{n}/{n % 3}' for n in range(24)]))))\n"
    )
    command, given = ([str(script)], None) if as_file else (["-"], script.read_text())
    done = subprocess.run([sys.executable, *command], input=given, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("begins\n['0', '1', '2']\n", 0), done.stderr


def test_processes_import_nothing_from_the_working_directory(tmp_path: Path) -> None:
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for name in ("multiprocessing", "concurrent", "numpy", "sitecustomize"):
        (strangers / f"{name}.py").write_text(f"open('imported', 'a').write('{name} ')\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from attunet.system import workers\n"
        "workers.usable_cores = lambda: 2\n"
        "print(*workers.over_cases(os.path.basename, ['x'] * 12), os.environ.get('PYTHONSAFEPATH'))\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=strangers, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["x"] * 12 + ["None"], done.stderr
    assert not (strangers / "imported").exists()


def test_threads_that_start_processes_keep_the_users_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    main, tasks = sys.modules["__main__"], [f"{number}/x" for number in range(24)]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            calls = [threads.submit(lambda: list(workers.over_cases(os.path.basename, tasks))) for _ in range(4)]
            assert all(call.result() == ["x"] * 24 for call in calls)
    assert sys.modules["__main__"] is main
