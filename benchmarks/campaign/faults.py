"""Faults, each made in a folder of its own, and what came of it."""

import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from commands import COMMANDS, Command, asked, fit, fresh, measure, one_sentence, start

SURVIVED, NOTICED, HARMLESS, SILENT, BROKEN = "survived", "noticed", "harmless", "silent", "broken"
"""It went on to the same end; told in a sentence; nothing came of it; another result without a word; the rest."""

ORDINARY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
"""Words before a command that let root be kept out as others are."""

LEFTOVERS = ("*.partial", "*.removed", "*.new", "*.tmp")

KINDS: dict[str, tuple[str, Command]] = {
    "checkpoint": ("base/run/checkpoints/*.ckpt", measure("base/run", "again")),
    "checkpoint, resumed": ("base/run/checkpoints/*.ckpt", fit("--trainer.max_steps=70", run="base/run")),
    "shards": ("base/sharded/checkpoints/*.ckpt/*", measure("base/sharded", "again")),
    "exported model": ("base/exported/*.[js]*", measure("base/exported", "again")),
    "token store": ("cache/**/*.*", measure("base/run", "again")),
    "token store, training": ("cache/**/*.*", fit("--trainer.max_steps=20", run="again")),
    "results": ("base/tested/results.json", COMMANDS["report"]),
    "tables": ("base/tested/scores/*.parquet", Command(["report", "base/tested", "base/tested", "--output=report"],
                                                      COMMANDS["report"].left)),
}  # fmt: skip
"""Files, and the command that reads them."""

LOST = {
    "rank": fit("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=400", run="lost"),
    "reader": fit("--data.num_workers=2", "--trainer.max_steps=400", run="lost"),
}
"""Commands of several processes, by the one that they lose."""


class Whole(NamedTuple):
    """A command without a fault: how long it takes, and a digest of what it leaves."""

    seconds: float
    left: str


def kill(name: str, base: Path, folder: Path, chance: random.Random, whole: Whole) -> tuple[str, str]:
    """Kill a command at any instant, and ask it again."""
    command = COMMANDS[name]
    process = start(command.words, fresh(base, folder))
    time.sleep(instant := chance.uniform(0.3, 1.0) * whole.seconds)
    process.kill()
    process.communicate()
    unharmed = SURVIVED if process.returncode == -signal.SIGKILL else HARMLESS  # it had ended before
    done = asked(command.words, folder)
    where = f"{name} after {instant:.1f} of {whole.seconds:.1f} s"
    if done.returncode and one_sentence(done) and _there(command, folder, whole):
        return unharmed, where  # all was written already, and is not written over
    if done.returncode:
        return (NOTICED if one_sentence(done) else BROKEN), f"{where}: {done.stderr[-300:]}"
    if not _there(command, folder, whole):
        return SILENT, where
    left = [path for pattern in LEFTOVERS for path in folder.rglob(pattern)]
    if left or _orphans(folder):
        return BROKEN, f"{where}: left {left or 'a process'}"
    return unharmed, where


def corrupt(name: str, base: Path, folder: Path, chance: random.Random, whole: Whole) -> tuple[str, str]:
    """Damage a file, and ask a command that reads it."""
    pattern, command = KINDS[name]
    fresh(base, folder)
    paths = sorted(path for path in folder.glob(pattern) if path.is_file() and path.stat().st_size)
    path = chance.choice(paths)
    how = chance.choice((_flip, _zeros, _truncate))
    size, place = path.stat().st_size, how(path, chance)
    where = f"{name}: {how.__name__.removeprefix('_')} in {path.name} at {place:,} of {size:,}"
    done = asked(command.words, folder)
    if done.returncode:
        return (NOTICED if one_sentence(done) else BROKEN), f"{where}: {done.stderr[-300:]}"
    return (HARMLESS if _there(command, folder, whole) else SILENT), where


def lose(name: str, base: Path, folder: Path, chance: random.Random, whole: Whole) -> tuple[str, str]:
    """Kill a rank or a process that reads data, and go on."""
    command = LOST[name]
    process = start(command.words, fresh(base, folder))
    while process.poll() is None and not list(folder.glob("lost/checkpoints/*.ckpt")):
        time.sleep(0.1)
    time.sleep(chance.uniform(0, 2))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if process.poll() is not None or not (pids := children.read_text().split()):
        return BROKEN, f"{name}: ended with status {process.returncode} before it was lost"
    os.kill(int(chance.choice(pids)), signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    if process.returncode != 1 or "--ckpt_path auto" not in said or _orphans(folder):
        return BROKEN, f"{name}: status {process.returncode}: {said[-300:]}"
    done = asked(command.words, folder)
    same = not done.returncode and _there(command, folder, whole)
    return (SURVIVED if same else BROKEN), f"{name}: status {done.returncode} after it went on {done.stderr[-300:]}"


def fill(name: str, base: Path, folder: Path, chance: random.Random, whole: Whole) -> tuple[str, str]:
    """Leave a command little room on a disk of its own, and ask it again with more."""
    command = COMMANDS[name]
    room = chance.choice((0, 1 << 12, 1 << 14, 1 << 16, 1 << 18))
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
        folder.rmdir()
        return _outgrown(name, base, folder, room, whole)  # mounting is not for everybody
    try:
        shutil.copytree(base, folder, symlinks=True, dirs_exist_ok=True)
        used = shutil.disk_usage(folder).used
        subprocess.run(["mount", "-o", f"remount,size={used + room}", folder], check=True)  # noqa: S607
        done = asked(command.words, folder)
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)  # noqa: S607
        return _mended(name, folder, done, whole, f"{room:,} bytes of room")
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S607


def _outgrown(name: str, base: Path, folder: Path, size: int, whole: Whole) -> tuple[str, str]:
    """Let no file grow beyond a size, and ask again."""
    done = asked(COMMANDS[name].words, fresh(base, folder), preexec_fn=lambda: _limit(size))
    return _mended(name, folder, done, whole, f"files of {size:,} bytes")


def _mended(
    name: str, folder: Path, done: subprocess.CompletedProcess[str], whole: Whole, limit: str
) -> tuple[str, str]:
    """What came of a command under a limit, which is asked again now that there is none, unless it had all it needs."""
    command, where = COMMANDS[name], f"{name}, {limit}: {done.stderr[-300:]}"
    if not done.returncode:
        return (HARMLESS if _there(command, folder, whole) else SILENT), where
    if not one_sentence(done):
        return BROKEN, where
    again = asked(command.words, folder)
    same = not again.returncode and _there(command, folder, whole)
    return (NOTICED, where) if same else (BROKEN, f"{where}, then {again.stderr[-300:]}")


def forbid(name: str, base: Path, folder: Path, chance: random.Random, whole: Whole) -> tuple[str, str]:
    """Ask a command as somebody who may not write there."""
    command = COMMANDS[name]
    fresh(base, folder)
    (folder / "cache").mkdir(exist_ok=True)
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
    done = asked(command.words, folder, before=ORDINARY if os.getuid() == 0 else [])
    for path in folders:
        path.chmod(0o755)
    return _mended(name, folder, done, whole, "nothing may be written")


def _there(command: Command, folder: Path, whole: Whole) -> bool:
    """Whether what a command leaves is there."""
    try:
        return command.left(folder) == whole.left
    except (OSError, ValueError, KeyError):
        return False


def _limit(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _flip(path: Path, chance: random.Random) -> int:
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return place


def _zeros(path: Path, chance: random.Random) -> int:
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    stop = min(place + 4096, len(content))
    content[place:stop] = bytes(stop - place)
    path.write_bytes(content)
    return place


def _truncate(path: Path, chance: random.Random) -> int:
    place = chance.randrange(path.stat().st_size)
    os.truncate(path, place)
    return place


def _orphans(folder: Path) -> list[str]:
    """Processes that work in a folder, a moment after those that were asked have ended."""
    deadline = time.monotonic() + 20
    while found := [each.name for each in Path("/proc").iterdir() if each.name.isdigit() and _works_in(each, folder)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return found


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder and (process / "stat").read_text().split()[2] != "Z"
    except OSError:
        return False


FAULTS: dict[str, tuple[Callable[..., tuple[str, str]], Mapping[str, Command]]] = {
    "kill -9": (kill, COMMANDS),
    "damaged file": (corrupt, {name: command for name, (_, command) in KINDS.items()}),
    "disk full": (fill, COMMANDS),
    "nothing may be written": (forbid, COMMANDS),
    "lost process": (lose, LOST),
}
"""Kinds of faults: what makes one, and the commands that meet it."""
