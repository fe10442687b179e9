"""Entries as the page shows them: names, looks, and the records of all seeds."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from lit_pi.evaluations.drawing.strategy_colours import strategy_colour
from lit_pi.evaluations.records import latest
from lit_pi.report.entries import Entry

SYMBOLS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "triangle-down": "▼", "star": "★", "x": "✖",
    "cross": "✚",
}  # fmt: skip
"""Symbols of plotly, and as letters: lines of one colour and dash differ in them."""


class Shown(NamedTuple):
    """An entry with its look, which is the same in every figure.

    Attributes:
        entry: the entry.
        name: a name that no other entry has.
        strategy: the position strategy, as `describe` gives it.
        colour: that of the strategy.
        symbol: at its points.
        tuned: whether it was trained under the strategy that it was measured with, and is not shown as it was before.
        records: by evaluation, a record of each seed.
    """

    entry: Entry
    name: str
    strategy: dict[str, Any]
    colour: str
    symbol: str
    tuned: bool
    records: dict[str, list[dict[str, Any]]]

    @property
    def dash(self) -> str:
        """The dash of its lines, as plotly calls it."""
        return "solid" if self.tuned else "dash"

    @property
    def trainings(self) -> list[dict[str, Any]]:
        """The last training of each seed; none of a model that is shown as it was before."""
        if not self.tuned:
            return []
        return [record["history"][-1] for record in next(iter(self.records.values())) if record.get("history")]


def shown(entries: Sequence[Entry]) -> list[Shown]:
    """Give every entry its look."""
    in_relation = any(entry.steps for entry in entries)
    taken: Counter[tuple[str, bool]] = Counter()
    found = []
    for entry in entries:
        records: dict[str, list[dict[str, Any]]] = {}
        for run in entry.runs:
            for name, record in latest(run.directory).items():
                records.setdefault(name, []).append(record)
        first = next(iter(records.values()))[0]
        strategy = first.get("protocol", {}).get("position", {})
        colour = strategy_colour(str(strategy.get("class", "")))
        history = first.get("history") or [{}]
        tuned = bool(entry.steps) if in_relation else history[-1].get("position") == strategy
        name = entry.name if entry.steps or not in_relation else f"{entry.arm}, zero-shot"
        symbol = list(SYMBOLS)[taken[colour, tuned] % len(SYMBOLS)]
        taken[colour, tuned] += 1
        found.append(Shown(entry, name, strategy, colour, symbol, tuned, records))
    return found


def of_kind(series: Sequence[Shown], kind: str) -> dict[str, list[Shown]]:
    """Entries that have records of a kind, by evaluation."""
    names = dict.fromkeys(
        name for each in series for name, records in each.records.items() if records[0]["kind"] == kind
    )
    return {name: [each for each in series if name in each.records] for name in names}
