"""The public contract notices what a stranger's strategy gets wrong, each mistake by the sentence that is about it."""

import ast
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_pi.cli import LitPiCLI
from lit_pi.positions import DynamicNTK, Extrapolate, PositionStrategy, Rope, testing
from lit_pi.positions.testing import check_contract

Frequencies = Callable[[Tensor], Tensor]


class Sound(Extrapolate):
    """A strategy by hand that has nothing wrong; the broken ones change one thing of it."""

    changed: Frequencies = staticmethod(lambda inv_freq: inv_freq)
    named = "Sound"
    scaling = 1.0

    def describe(self) -> dict[str, Any]:
        return {"class": self.named}

    def inv_freq(self, rope: Rope, context_length: int) -> Tensor:
        return self.changed(rope.inv_freq())

    def attention_scaling(self, rope: Rope, context_length: int) -> float:
        return self.scaling


def broken(**changed: Any) -> PositionStrategy:
    """A sound strategy but for what is changed."""
    return type("Sound", (Sound,), changed)()


def frequencies(changed: Frequencies) -> PositionStrategy:
    return broken(changed=staticmethod(changed))


class Worn(Sound):
    """A copy computes something else."""

    named = "Worn"
    copies = 0

    def __deepcopy__(self, memo: dict) -> "Worn":
        other = Worn()
        other.copies = self.copies + 1
        return other

    def inv_freq(self, rope: Rope, context_length: int) -> Tensor:
        return rope.inv_freq() / (1 + self.copies)


class Following(Sound):
    """Angles that depend on the length, of which it says nothing."""

    named = "Following"

    def inv_freq(self, rope: Rope, context_length: int) -> Tensor:
        return rope.inv_freq() / max(1, context_length / rope.original_context)


class Louder(Sound):
    """Its scaling depends on the length, of which it says nothing."""

    named = "Louder"

    def attention_scaling(self, rope: Rope, context_length: int) -> float:
        return max(1.0, context_length / rope.original_context)


class WideAngles(Sound):
    named = "WideAngles"

    def angles(self, position_ids: Tensor, rope: Rope, context_length: int) -> Tensor:
        return position_ids[..., None].double() * self.inv_freq(rope, context_length)


class ShiftedAngles(Sound):
    """One position further than it stands, beyond the first thousand only."""

    named = "ShiftedAngles"

    def angles(self, position_ids: Tensor, rope: Rope, context_length: int) -> Tensor:
        return (position_ids + (position_ids > 1000))[..., None].float() * self.inv_freq(rope, context_length)


class ByDefaultDtype(Sound):
    named = "ByDefaultDtype"

    def angles(self, position_ids: Tensor, rope: Rope, context_length: int) -> Tensor:
        return position_ids[..., None].to(torch.get_default_dtype()).float() * self.inv_freq(rope, context_length)


class ByAutocast(Sound):
    """A product of matrices, which autocast rounds."""

    named = "ByAutocast"

    def angles(self, position_ids: Tensor, rope: Rope, context_length: int) -> Tensor:
        return (position_ids[..., None].float() @ self.inv_freq(rope, context_length)[None]).float()


BROKEN: dict[str, tuple[PositionStrategy, str]] = {
    "another name": (broken(named="Other"), "describe() must name the class"),
    "a tuple": (broken(describe=lambda _: {"class": "Sound", "betas": (1, 2)}), "describe() must be plain JSON"),
    "a frequency a dimension": (frequencies(lambda each: each.repeat(2)), "inv_freq must have 32 frequencies"),
    "frequencies in float64": (frequencies(Tensor.double), "inv_freq must be float32"),
    "an infinite frequency": (frequencies(lambda each: each / 0), "frequencies must be finite and not negative"),
    "a negative frequency": (frequencies(lambda each: each - 0.01), "frequencies must be finite and not negative"),
    "rising frequencies": (frequencies(lambda each: each.flip(0)), "frequencies must not rise"),
    "a copy that differs": (Worn(), "a copy must give the same"),
    "chance": (frequencies(lambda each: each * torch.rand(1)), "a copy must give the same"),
    "no scaling": (broken(scaling=0.0), "attention_scaling must be positive"),
    "infinite scaling": (broken(scaling=float("inf")), "attention_scaling must be positive"),
    "angles in float64": (WideAngles(), "angles must be float32"),
    "angles of other positions": (ShiftedAngles(), "angles must be positions times frequencies"),
    "angles by torch's default dtype": (ByDefaultDtype(), "angles must not depend on torch's default dtype"),
    "angles by autocast": (ByAutocast(), "angles must not depend on autocast"),
    "frequencies by the length": (
        Following(), "prefix_consistent is True, but the angles of a prefix depend on what follows it",
    ),
    "scaling by the length": (
        Louder(), "prefix_consistent is True, but the angles of a prefix depend on what follows it",
    ),
    "a length that changes nothing": (
        broken(prefix_consistent=False),
        "prefix_consistent is False, but the angles of a prefix do not depend on what follows it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("position", "said"), BROKEN.values(), ids=BROKEN)
def test_a_mistake_is_told_by_its_sentence(position: PositionStrategy, said: str) -> None:
    with pytest.raises(AssertionError, match=f"^{re.escape(said)}"):
        check_contract(position)


CONTRACT = inspect.getsource(testing)
ASSERTS = [node.lineno for node in ast.walk(ast.parse(CONTRACT)) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("line", ASSERTS)
def test_without_one_of_its_asserts_a_mistake_is_not_told(line: int) -> None:
    class Deletion(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> ast.stmt:
            return ast.copy_location(ast.Pass(), node) if node.lineno == line else node

    without: dict[str, Any] = {}
    exec(compile(Deletion().visit(ast.parse(CONTRACT)), testing.__file__, "exec"), without)

    def told(position: PositionStrategy) -> str:
        try:
            without["check_contract"](position)
        except Exception as error:
            return str(error)
        return ""

    assert any(not told(position).startswith(said) for position, said in BROKEN.values())


def test_what_is_not_json_is_not_described() -> None:
    with pytest.raises(TypeError, match="Tensor is not JSON serializable"):
        check_contract(broken(describe=lambda _: {"class": "Sound", "tensor": torch.ones(1)}))


def test_a_sound_strategy_passes() -> None:
    """Also where frequencies rise with leave, and where angles depend on the length and it says so."""
    check_contract(broken())
    check_contract(frequencies(lambda each: each.flip(0)), monotonic=False)
    check_contract(DynamicNTK(scale=4))


def test_every_rope_is_checked() -> None:
    """Frequencies that rise for models of a large base only."""
    position = frequencies(lambda each: each.flip(0) if each[-1] < 1e-5 else each)
    check_contract(position)
    with pytest.raises(AssertionError, match=r"^frequencies must not rise"):
        check_contract(position, [Rope(64, 10_000.0, 2048), Rope(128, 1e6, 4096)])


def test_torchs_default_dtype_is_left_as_it_was() -> None:
    class Failing(Sound):
        named = "Failing"

        def angles(self, position_ids: Tensor, rope: Rope, context_length: int) -> Tensor:
            if torch.get_default_dtype() != torch.float32:
                raise ValueError("fails in half precision")
            return super().angles(position_ids, rope, context_length)

    with pytest.raises(ValueError, match="fails in half precision"):
        check_contract(Failing())
    assert torch.get_default_dtype() == torch.float32


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
