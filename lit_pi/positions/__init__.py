"""Position strategies: how token positions become rotary angles. Pure torch, one file a strategy."""

from lit_pi.positions.base import PositionStrategy, StretchingStrategy, prefix_agrees
from lit_pi.positions.extrapolate import Extrapolate
from lit_pi.positions.interpolate import Interpolate
from lit_pi.positions.rope import Rope

__all__ = ["Extrapolate", "Interpolate", "PositionStrategy", "Rope", "StretchingStrategy", "prefix_agrees"]
