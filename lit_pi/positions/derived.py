"""The base of strategies that change the frequencies of another one."""

from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.extrapolate import Extrapolate
from lit_pi.positions.rope import Rope


class DerivedStrategy(PositionStrategy):
    """A strategy that changes the frequencies of another one.

    Args:
        inner: the strategy whose frequencies are changed; by default `Extrapolate`, those of pre-training.
    """

    # `None` is also what keeps shell completion from offering `inner.inner.inner...` without end.
    def __init__(self, inner: PositionStrategy | None = None) -> None:
        self.inner = Extrapolate() if inner is None else inner

    @property
    def prefix_consistent(self) -> bool:
        """The same as for the inner strategy."""
        return self.inner.prefix_consistent

    def attention_scaling(self, rope: Rope, context_length: int) -> float:
        """The same as for the inner strategy."""
        return self.inner.attention_scaling(rope, context_length)

    def target_context_of(self, rope: Rope) -> int:
        """The same as for the inner strategy."""
        return self.inner.target_context_of(rope)
