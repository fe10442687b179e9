"""Ranges of numbers, declared in the annotation of an option and checked wherever it is given.

They are no `annotated_types`: of those, the parser of the command line makes another type where pydantic is installed.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from inspect import signature
from numbers import Real
from typing import Annotated, Any, NamedTuple, ParamSpec, TypeVar, get_args, get_type_hints

from lit_pi.errors import UserError


class Range(NamedTuple):
    """Finite numbers that an option takes.

    Attributes:
        low: the smallest of them.
        high: the largest of them.
        above: whether `low` itself is too small.
        below: whether `high` itself is too large.
        step: they are multiples of it.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    step: float = 0

    def __contains__(self, value: object) -> bool:
        """Whether it is one of them."""
        if not isinstance(value, Real) or not math.isfinite(number := float(value)):
            return False
        at_an_end = (self.above and number == self.low) or (self.below and number == self.high)
        return self.low <= number <= self.high and not at_an_end and not (self.step and number % self.step)

    def __repr__(self) -> str:
        """The range in words, as messages and `--help` have it."""
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        words = [] if self.low == -math.inf else [f"above {low}" if self.above else f"{low} or more"]
        words += [] if self.high == math.inf else [f"below {high}" if self.below else f"at most {high}"]
        words += [f"a multiple of {self.step:g}"] if self.step else []
        return " and ".join(words) or "finite"

    def check(self, name: str, value: object) -> None:
        """Check that a number is one of them.

        Args:
            name: the option, for the message.
            value: the number.

        Raises:
            UserError: it is not, or not finite.
        """
        if isinstance(value, Real) and not math.isfinite(value):
            raise UserError(f"{name} is {value}, which is not finite: it must be {self!r}")
        if value not in self:
            raise UserError(f"{name} is {value}: it must be {self!r}")


MOST_TOKENS = 2**24
"""Tokens of the longest context that anything here is asked for; beyond it a slip of the finger takes hours."""

Count = Annotated[int, Range(1)]
"""Things of which there is at least one."""
Natural = Annotated[int, Range(0)]
"""Things of which there may be none."""
BatchSize = Annotated[int, Range(1, 2**16)]
"""Sequences of a batch; of more, none ever comes together."""
Tokens = Annotated[int, Range(1, MOST_TOKENS)]
"""Tokens of a context."""
Seed = Annotated[int, Range(0, 2**63 - 1)]
"""Seeds that every generator takes."""
Positive = Annotated[float, Range(0, above=True)]
"""Factors that neither vanish nor turn the sign."""
NotNegative = Annotated[float, Range(0)]
"""Amounts that may be 0."""
Share = Annotated[float, Range(0, 1, above=True)]
"""Shares that are not nothing."""
Stretch = Annotated[float, Range(1, 1_000_000)]
"""Target context over original context."""

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def in_range(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """A function or constructor that refuses numbers outside of the ranges that its annotations declare."""
    parameters = signature(function)
    owner = next(iter(parameters.parameters), "")

    @wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        given = parameters.bind_partial(*args, **kwargs).arguments
        name = type(given[owner]).__name__ if owner == "self" else function.__name__
        for option, hint in declared(function).items():
            if option in given:
                _check(f"{option} of {name}", given[option], hint)
        return function(*args, **kwargs)

    return checked


@cache
def declared(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a function's options that declare a range, by name."""
    hints = get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if ranges_in(hint)}


def ranges_in(hint: Any) -> list[Range]:
    """The ranges that an annotation declares, for a number or for each of several."""
    own = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Range)]
    return own + [found for inner in get_args(hint) if not isinstance(inner, Range) for found in ranges_in(inner)]


def _check(name: str, value: object, hint: Any) -> None:
    if isinstance(value, Mapping):
        value = value.values()
    for each in value if isinstance(value, Iterable) and not isinstance(value, str) else [value]:
        if isinstance(each, Real):
            for allowed in ranges_in(hint):
                allowed.check(name, each)
