"""Whether the cells of a comparison differ in nothing but what is compared."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lit_pi.compare.planning import Measured
from lit_pi.evaluations.records import latest

SAME_WINDOWS = ("windows", "asked")
SAME_PROTOCOL = ("attention_kernel", "precision", "compute_dtype", "model")
SAME_TRAINING = (
    "initial_weights", "sequences", "tokens", "optimizer", "learning_rate", "precision", "attention_kernel", "seed",
)  # fmt: skip
"""Fields that are equal in the cells of a controlled comparison."""

CALLED = {
    "windows": "the tokens that were measured",
    "asked": "the evaluation's options",
    "attention_kernel": "the attention kernel",
    "compute_dtype": "the dtype of matrices",
    "model": "the model",
    "initial_weights": "the weights that training began with",
    "sequences": "the training sequences or their order",
    "learning_rate": "the learning rate",
}
"""Fields as people call them."""


class Difference(NamedTuple):
    """Something that differs between cells beside the strategy.

    Attributes:
        what: the field, as people call it.
        values: what it is, by the names of points.
    """

    what: str
    values: dict[str, Any]

    def __str__(self) -> str:
        """The difference in a sentence."""
        groups: dict[str, list[str]] = {}
        for name, value in self.values.items():
            groups.setdefault(str(value), []).append(name)
        return f"{self.what}: " + "; ".join(f"{value} in {', '.join(names)}" for value, names in groups.items())


def differences(points: Sequence[Measured]) -> list[Difference]:
    """Find what differs between points that were measured, beside their strategies."""
    return [*_of_tests(points), *_of_trainings(points)]


def _of_tests(points: Sequence[Measured]) -> Iterator[Difference]:
    records = {point: latest(point.cell.directory) for point in points}
    for evaluation in dict.fromkeys(name for each in records.values() for name in each):
        found = {point: each[evaluation] for point, each in records.items() if evaluation in each}
        for field in SAME_WINDOWS:
            yield from _unequal(f"{evaluation}: {CALLED[field]}", {p.name: r.get(field) for p, r in found.items()})
        for field in SAME_PROTOCOL:
            said = f"{evaluation}: {CALLED.get(field, field)}"
            yield from _unequal(said, {p.name: r["protocol"].get(field) for p, r in found.items()})


def _of_trainings(points: Sequence[Measured]) -> Iterator[Difference]:
    """Compare the trainings of points after as many steps with the same seed."""
    groups: dict[tuple[int, int | None], dict[str, dict[str, Any]]] = {}
    for point in points:
        record = next(iter(latest(point.cell.directory).values()))
        if point.steps and record.get("history"):
            groups.setdefault((point.steps, point.seed), {})[point.name] = record["history"][-1]
    for group in groups.values():
        for field in SAME_TRAINING:
            yield from _unequal(CALLED.get(field, field), {name: last.get(field) for name, last in group.items()})


def _unequal(what: str, values: dict[str, Any]) -> Iterator[Difference]:
    if len({str(value) for value in values.values()}) > 1:
        yield Difference(what, values)
