"""The public contract notices what a stranger's strategy gets wrong."""

import sys
from pathlib import Path

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.positions import Extrapolate, PositionStrategy, Rope
from lit_pi.positions.testing import check_contract


class Rising(Extrapolate):
    def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
        return rope.inv_freq().flip(0)


class Wide(Extrapolate):
    def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
        return rope.inv_freq().double()


class Following(Extrapolate):
    def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
        return rope.inv_freq() / max(1, context_length / rope.original_context)


class Shy(Extrapolate):
    @property
    def prefix_consistent(self) -> bool:
        return False


class HalfPrecision(Extrapolate):
    def angles(self, position_ids: torch.Tensor, rope: Rope, context_length: int) -> torch.Tensor:
        return position_ids[..., None].to(torch.get_default_dtype()).float() * rope.inv_freq()


class Opaque(Extrapolate):
    def __init__(self) -> None:
        self.tensor = torch.ones(1)


class Random(Extrapolate):
    def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
        return rope.inv_freq() * torch.rand(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("broken", [Rising, Wide, Following, Shy, HalfPrecision, Opaque, Random])
def test_a_broken_strategy_is_found_out(broken: type[PositionStrategy]) -> None:
    with pytest.raises(Exception, match=r".+"):
        check_contract(broken())


@pytest.mark.filterwarnings("ignore")
def test_a_strategy_from_anywhere_runs_by_its_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: list[str]
) -> None:
    (tmp_path / "my_positions.py").write_text(
        "from lit_pi.positions import StretchingStrategy\n\n\n"
        "class Halfway(StretchingStrategy):\n"
        "    def inv_freq(self, rope, context_length):\n"
        "        return rope.inv_freq() / ((1 + self.scale_of(rope)) / 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cli = LitPiCLI(
        ["test", *tiny, "--model.position=my_positions.Halfway", "--model.position.scale=3",
         f"--trainer.default_root_dir={tmp_path}"]
    )  # fmt: skip
    assert cli.model.position.describe() == {"class": "Halfway", "scale": 3.0, "target_context": None}
    check_contract(sys.modules["my_positions"].Halfway(scale=3))
