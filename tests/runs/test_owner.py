"""A run directory belongs to one run."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lit_pi.runs.owner import unused_directory


def test_runs_that_begin_in_one_second_get_a_directory_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(unused_directory, [tmp_path / "runs"] * 40))
    assert len(set(runs)) == 40
    assert all(run.is_dir() for run in runs)
