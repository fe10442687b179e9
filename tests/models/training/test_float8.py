"""Float8 is refused where it cannot be, and leaves no trace where it must not be."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.training.float8 import in_high_precision, use_float8
from lit_pi.positions import Extrapolate, Rope


@pytest.fixture
def model() -> LanguageModel:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    return LanguageModel(LlamaForCausalLM(config), Extrapolate(), Rope(8, 1e4, 32))


@pytest.mark.filterwarnings("ignore")
def test_a_run_without_torchao_is_refused(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(UserError) as refusal:
        LitPiCLI(["fit", *tiny, "--model.float8=rowwise", f"--trainer.default_root_dir={tmp_path}"])
    assert str(refusal.value) == "model.float8 is rowwise, which needs torchao: pip install 'lit_pi[fast]'"


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_devices_without_such_units_are_refused(
    kind: str, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchao = ModuleType("torchao.float8")
    torchao.Float8LinearConfig = torchao.convert_to_float8_training = None
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.float8", torchao)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(UserError, match=f"^model.float8 is tensorwise, and {kind} multiplies no float8 matrices: "):
        use_float8(model, "tensorwise", torch.device(kind))


def test_a_model_multiplies_as_before_for_a_while(model: LanguageModel) -> None:
    class Rounded(nn.Linear):
        """As torchao has it: a class of its own, with the parameters of before."""

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return super().forward(states).to(torch.float8_e4m3fn).to(states.dtype)

    tokens = torch.arange(8)[None]
    expected = model(tokens, tokens)
    projections = [module for module in model.decoder_layers.modules() if isinstance(module, nn.Linear)]
    for module in projections:
        module.__class__ = Rounded
    rounded = model(tokens, tokens)
    with pytest.raises(ZeroDivisionError), in_high_precision(model):
        assert torch.equal(model(tokens, tokens), expected)
        _ = 1 / 0
    assert not torch.equal(rounded, expected)
    assert torch.equal(model(tokens, tokens), rounded)
    assert all(type(module) is Rounded for module in projections)
