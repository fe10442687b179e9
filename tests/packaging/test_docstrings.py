"""Docstrings are sentences that a reader of `--help` understands alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of the docstrings of modules, classes and functions, and of those below attributes."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Expr(ast.Constant(str() as text)):
                yield node.lineno, text


def checked() -> list[Path]:
    return [path for folder in ("lit_pi", "callbacks") for path in sorted((ROOT / folder).rglob("*.py"))]


def found(pattern: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in checked()
        for line, text in docstrings(path)
        if re.search(pattern, text, re.MULTILINE)
    ]


def test_docstrings_name_their_subject() -> None:
    """ "Of checkpointing, for each layer." says something only to who reads the code around it."""
    assert not found(r"\A(Of|What) ")


def test_descriptions_of_arguments_name_their_subject() -> None:
    """ "seed: of the samples" and "test: likewise" are read in `--help` without what stands before them."""
    assert not found(r"^ +\w+: (of|to|likewise)\b")
