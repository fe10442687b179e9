"""CONTRIBUTING's worked examples, as files."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^`(?P<path>[^`]+)`[^\n]*:\n\n```(?:python|yaml)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str) -> dict[str, str]:
    """The files of a section, by their paths."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    found = {match["path"]: match["code"] for match in BLOCK.finditer(text)}
    assert len(found) == text.count("\n```") / 2, "a block has no line with its path above it"
    return found
