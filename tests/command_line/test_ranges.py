"""Ranges that are declared in annotations are kept: one test for each option, made from its declaration."""

import inspect
import math
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lit_pi.errors import UserError
from lit_pi.ranges import Range, declared, ranges_in

ROOT = Path(__file__).parents[2]


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Constructors and functions of the project whose options declare a range, with the name in messages."""
    for path in sorted((ROOT / "lit_pi").rglob("*.py")):
        if "in_range" not in path.read_text() or path.name == "ranges.py":
            continue
        module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name, found in vars(module).items():
            if getattr(found, "__module__", None) == module.__name__:
                function = vars(found).get("__init__") if inspect.isclass(found) else found
                if inspect.isfunction(function) and declared(inspect.unwrap(function)):
                    yield name, function


def outside(allowed: Range) -> list[float]:
    """Numbers on either side of a range, between its steps, and none at all."""
    below = [allowed.low if allowed.above else allowed.low - 1] if allowed.low > -math.inf else []
    beyond = [allowed.high if allowed.below else allowed.high + 1] if allowed.high < math.inf else []
    between = [allowed.low + allowed.step + 1] if allowed.step else []
    return [*below, *beyond, *between, math.nan, math.inf]


CASES = [
    pytest.param(name, function, option, hint, id=f"{name}-{option}")
    for name, function in functions()
    for option, hint in declared(inspect.unwrap(function)).items()
]


def test_options_of_every_kind_declare_ranges() -> None:
    some = {"LongContextData-batch_size", "Perplexity-stride", "StretchingStrategy-scale", "export-target_context"}
    assert some <= {case.id for case in CASES}
    assert len(CASES) > 60


@pytest.mark.parametrize(("name", "function", "option", "hint"), CASES)
def test_numbers_outside_of_a_declared_range_are_refused(
    name: str, function: Callable[..., Any], option: str, hint: Any
) -> None:
    parameters = inspect.signature(function).parameters.values()
    needed = {each.name: None for each in parameters if each.default is each.empty and each.name != option}
    if "self" in needed:
        needed["self"] = type(name, (), {})()
    for allowed in ranges_in(hint):
        for value in outside(allowed):
            given = [value] if "Sequence" in str(hint) else value
            with pytest.raises(UserError, match=f"^{option} of {name} is {value}.*: it must be ") as refusal:
                function(**needed | {option: given})
            assert str(refusal.value).endswith(repr(allowed))


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        (Range(1), "1 or more"),
        (Range(0, 1, above=True), "above 0 and at most 1"),
        (Range(0, 0.5, below=True), "0 or more and below 0.5"),
        (Range(8, 2**24, step=8), "8 or more and at most 16,777,216 and a multiple of 8"),
    ],
)
def test_a_range_says_what_it_takes(allowed: Range, said: str) -> None:
    assert repr(allowed) == said
    inside = allowed.low + (allowed.step or 0.25 if allowed.high < 2 else allowed.step or 1)
    assert inside in allowed and all(value not in allowed for value in outside(allowed))
