"""Imports go one way, so that each room can be read without the ones above it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

BASE = {"errors", "files", "progress", "batches", "hub", "gguf_file", "ranges", "seal", "secrets"}
"""Single files that know no room; any room may import them."""
ROOMS: dict[str, set[str]] = {
    "positions": set(),
    "runs": set(),
    "theory": {"positions"},
    "data": set(),
    "models": {"positions", "runs"},
    "parallel": {"positions", "models"},
    "module": {"positions", "models", "parallel"},
    "evaluations": {"data"},
    "datamodules": {"data", "evaluations", "runs"},
    "report": {"evaluations", "runs"},
    "export": {"positions", "models", "data", "evaluations", "runs"},
    "planning": {"data", "datamodules", "models", "parallel", "module"},
    "compare": {"positions", "models", "evaluations", "planning", "report", "runs"},
}
MAY_IMPORT = (
    dict.fromkeys(BASE, BASE)
    | {name: BASE | rooms for name, rooms in ROOMS.items()}
    | {"callbacks": BASE | ROOMS.keys() - {"export", "compare"}}
    | dict.fromkeys(("python", "command_line"), BASE | ROOMS.keys() | {"callbacks"})
)
"""What each room may import beside itself; `cli` and `__main__` may import everything, and nothing imports them."""


def room(module: str) -> str:
    return module.removeprefix("lit_pi.").split(".")[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("lit_pi.") and name != "lit_pi.__version__"}


def test_imports_go_one_way() -> None:
    wrong = []
    for folder, package in ((ROOT / "lit_pi", "lit_pi"), (ROOT / "callbacks", "lit_pi.callbacks")):
        for path in folder.rglob("*.py"):
            importer = room(".".join((package, *path.relative_to(folder).with_suffix("").parts)))
            if importer in {"cli", "__main__", "__init__"}:
                continue
            allowed = MAY_IMPORT[importer] | {importer}
            wrong += [
                f"{path.relative_to(ROOT)} imports {name}"
                for name in imports(path)
                if not any(f"{name}.".startswith(f"lit_pi.{prefix}.") for prefix in allowed)
            ]
    assert not wrong


def test_positions_know_neither_lightning_nor_transformers() -> None:
    for path in (ROOT / "lit_pi" / "positions").rglob("*.py"):
        assert not {"lightning", "transformers"} & {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }, path


def test_files_are_read_in_one_sitting() -> None:
    ours = (p for p in ROOT.rglob("*.py") if not p.relative_to(ROOT).parts[0].startswith(".venv"))
    long = [p for p in ours if len(p.read_text().splitlines()) > 400]
    assert not long


LARGER = {"lit_pi": 26, "lit_pi/positions": 25, "tests": 26, "tests/helpers": 16}
"""The rooms themselves with their tests, and a file a strategy; no other folder has more than 15 entries."""


def test_folders_are_taken_in_at_a_glance() -> None:
    crowded = {}
    for top in ("lit_pi", "callbacks", "tests"):
        for folder in (ROOT / top, *(path for path in (ROOT / top).rglob("*") if path.is_dir())):
            entries = [e for e in folder.iterdir() if e.name != "__init__.py" and not e.name.startswith(("__", "."))]
            if "__pycache__" not in folder.parts and len(entries) > LARGER.get(str(folder.relative_to(ROOT)), 15):
                crowded[str(folder.relative_to(ROOT))] = len(entries)
    assert not crowded
