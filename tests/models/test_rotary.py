"""Every strategy inside a model: the same rotation whatever happens to the model."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from strategies import STRATEGIES
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from lit_pi.errors import UserError
from lit_pi.export import write_model
from lit_pi.models import FromScratch, LanguageModel, Pretrained
from lit_pi.module import LitLlama
from lit_pi.positions import (
    AdjustedBase,
    DynamicNTK,
    Extrapolate,
    FromConfig,
    Interpolate,
    Llama3,
    LongRoPE,
    NTKAware,
    PositionStrategy,
    YaRN,
)

TINY = {
    "vocab_size": 97,
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
POSITIONS = torch.tensor([[0, 1, 2, 63, 64, 200, 255, 100_000]])

every_strategy = pytest.mark.parametrize("position", STRATEGIES.values(), ids=STRATEGIES)
pytestmark = pytest.mark.filterwarnings("ignore:.*save_config.*")


def phases(model: LanguageModel, length: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine for float32 hidden states."""
    model.rotary.context_length = length
    return model.rotary(torch.zeros(1, 8, 1, dtype=torch.float32), POSITIONS)


def built(position: PositionStrategy) -> LanguageModel:
    return LanguageModel(*_parts(FromScratch(config=TINY).build(), position))


def _parts(parts: tuple, position: PositionStrategy) -> tuple:
    llm, rope = parts
    return llm, position, rope


def assert_same(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


@every_strategy
def test_precision_and_meta_initialisation_change_no_angle(position: PositionStrategy) -> None:
    expected = phases(built(position))
    assert_same(phases(built(position).to(torch.bfloat16)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(phases(built(position)), expected)
    with torch.device("meta"):
        model = built(position)
    assert_same(phases(model.to_empty(device="cpu")), expected)
    for precision in ("bf16-true", "bf16-mixed"):
        trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
        with trainer.precision_plugin.module_init_context(), trainer.precision_plugin.forward_context():
            model = trainer.precision_plugin.convert_module(built(position))
            assert_same(phases(model), expected)


@every_strategy
@pytest.mark.filterwarnings("ignore")
def test_saving_loading_building_twice_and_exporting_change_no_angle(
    position: PositionStrategy, tmp_path: Path
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    module = LitLlama(FromScratch(config=TINY), position)
    trainer.strategy.connect(module)
    module.trainer = trainer
    module.configure_model()
    expected = phases(module.model)
    module.configure_model()
    assert_same(phases(module.model), expected)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    for way in (position, FromConfig()):
        try:
            restored = LanguageModel(*_parts(Pretrained(str(tmp_path / "model.ckpt")).build(), way))
        except UserError as refusal:
            assert way is not position and f"rope_type '{type(position).__name__}'" in str(refusal)
            continue
        if way is position:
            assert_same(phases(restored), expected)
        else:
            for one, other in zip(phases(restored), expected, strict=True):
                torch.testing.assert_close(one[:, :-1], other[:, :-1], rtol=0, atol=1e-4)
    try:
        write_model(module.model, tmp_path / "exported")
    except UserError as refusal:
        assert type(position).__name__ in str(refusal)
        return
    exported = Pretrained(str(tmp_path / "exported"))
    assert_same(phases(LanguageModel(*_parts(exported.build(), position))), expected)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    tokens = torch.randint(0, 97, (1, 200), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock_nll = -stock(tokens[:, :-1]).logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        torch.testing.assert_close(module.model.eval()(tokens[:, :-1], tokens[:, 1:]), stock_nll, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore")
def test_extending_an_extended_model_counts_from_pre_training(tmp_path: Path) -> None:
    llm, rope = FromScratch(config={**TINY, "max_position_embeddings": 2048}).build()
    model = LanguageModel(llm, Interpolate(target_context=8192), rope)
    write_model(model, tmp_path / "8k")
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    module = LitLlama(Pretrained(str(tmp_path / "8k")), Interpolate(scale=4))
    trainer.strategy.connect(module)
    module.trainer = trainer
    module.configure_model()
    trainer.save_checkpoint(tmp_path / "8k.ckpt")
    for source in ("8k", "8k.ckpt"):
        again = LanguageModel(*_parts(Pretrained(str(tmp_path / source)).build(), Interpolate(target_context=32_768)))
        assert again.rope.original_context == 2048
        assert again.position.scale_of(again.rope) == 16
        unchanged = LanguageModel(*_parts(Pretrained(str(tmp_path / source)).build(), FromConfig()))
        assert unchanged.position.describe() == {"class": "Interpolate", "scale": 4.0, "target_context": None}


ROPES = {
    "default": Extrapolate(),
    "base": AdjustedBase(5e5),
    "linear": Interpolate(scale=4),
    "dynamic": DynamicNTK(scale=2),
    "yarn": YaRN(scale=4),
    "yarn-factor": YaRN(scale=8, attention_factor=1.1),
    "llama3": Llama3(scale=8),
    "longrope": LongRoPE([1.0 + j for j in range(32)], scale=4),
    "ntk": NTKAware(scale=4),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("kind", ROPES)
def test_models_that_arrive_extended_give_stock_logits(architecture: type, kind: str, tmp_path: Path) -> None:
    source_rope = FromScratch(config=TINY).build()[1]
    fields = {**TINY, "head_dim": 64, "num_key_value_heads": 1, "use_sliding_window": False, "sliding_window": None}
    config = architecture(**fields, rope_parameters=ROPES[kind].rope_parameters(source_rope))
    stock = AutoModelForCausalLM.from_config(config).eval()
    stock.save_pretrained(tmp_path)
    model = LanguageModel(*_parts(Pretrained(str(tmp_path)).build(), FromConfig())).eval()
    tokens = torch.randint(0, 97, (2, 160), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock_nll = -stock(tokens[:, :-1]).logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        torch.testing.assert_close(model(tokens[:, :-1], tokens[:, 1:]), stock_nll, rtol=0, atol=2e-6)
