"""What is written beside its place is whole there, or not there at all."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lit_pi.files import beside, read_sealed, remove, write_sealed


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "results.json"
    for content in ("first", "second"):
        with beside(path) as partial:
            partial.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert names(tmp_path) == {"runs", "runs/results.json"}


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    with beside(tmp_path / "model") as partial:
        (partial / "shards").mkdir(parents=True)
        (partial / "shards" / "0").write_text("weights")
        assert not (tmp_path / "model").exists()
    assert names(tmp_path) == {"model", "model/shards", "model/shards/0"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "results.json").write_text("old")
    with pytest.raises(error), beside(tmp_path / "results.json") as partial:
        partial.write_text("half of the n")
        raise error
    with pytest.raises(error), beside(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "half").write_text("half of the w")
        raise error
    assert names(tmp_path) == {"results.json"} and (tmp_path / "results.json").read_text() == "old"


def test_a_folder_with_something_in_it_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("somebody's")
    with pytest.raises(OSError), beside(tmp_path / "model") as partial:
        partial.mkdir()
    assert names(tmp_path) == {"model", "model/weights"}


KILLED = """
import os, signal, sys
from pathlib import Path
from lit_pi.files import beside
with beside(Path(sys.argv[1])) as partial:
    partial.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert killed.returncode == -signal.SIGKILL and path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    with beside(path) as partial:
        assert not partial.exists()
        partial.write_text("new")
    assert names(tmp_path) == {"results.json"} and path.read_text() == "new"


def test_everything_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder around it too, after it has: or a power cut would take the new name back."""
    synced: list[tuple[str, bool]] = []
    path = tmp_path / "model"
    monkeypatch.setattr("lit_pi.files.sync", lambda each: synced.append((each.name, path.exists())))
    with beside(path) as partial:
        (partial / "shards").mkdir(parents=True)
        (partial / "shards" / "0").write_text("weights")
    before, after = [{name for name, there in synced if there is stage} for stage in (False, True)]
    assert before == {partial.name, "shards", "0"} and after == {tmp_path.name}


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for name in ("file", "folder", "nothing"):
        remove(tmp_path / name)
    assert not names(tmp_path)


def test_sealed_json_is_known_again_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "sealed.json"
    said = {"b": [1, 0.1, None, "é\ud800"], "a": {"10": 1e300, "9": -0.0}, "path": tmp_path}
    write_sealed(path, said, default=str)
    text = path.read_text()
    assert read_sealed(path) == said | {"path": str(tmp_path)} and list(read_sealed(path)) == ["b", "a", "path"]
    path.write_text(json.dumps(json.loads(text)))
    assert read_sealed(path)  # white space says nothing
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_sealed(tmp_path / "other.json", {"a": math.nan})
    assert names(tmp_path) == {"sealed.json"}
    for place, character in enumerate(text):
        path.write_text(text[:place] + ("7" if character != "7" else "8") + text[place + 1 :])
        with pytest.raises(ValueError, match=r"it is not|it has no checksum"):
            read_sealed(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="it is not valid JSON"):
        read_sealed(path)
