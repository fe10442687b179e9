"""Stand-in until pictures are data."""

from pathlib import Path

from matplotlib.figure import Figure as Picture


def draw(picture: Picture) -> Picture:
    """As it is."""
    return picture


def save(picture: Picture, folder: Path, name: str) -> None:
    """As PNG and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "svg"):
        picture.savefig(folder / f"{name}.{ending}")
