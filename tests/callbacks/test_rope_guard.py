"""The guard lets a model run that rotates as its strategy says, and no other."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from strategies import IN_MODELS

from lit_pi.callbacks import RopeGuard
from lit_pi.cli import LitPiCLI
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.models import FromScratch
from lit_pi.models.rotary import RotaryEmbedding
from lit_pi.module import LitLlama
from lit_pi.positions import Extrapolate, Interpolate, LayerRotations, PositionStrategy, SelfExtend

CONFIG = {
    "vocab_size": 264, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "head_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")


class Meddle(Callback):
    """Does something to the model once it is built, as a patch or a wrapper would."""

    def __init__(self, how: Callable[[LitLlama], Any]) -> None:
        self.how = how

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LitLlama)
        self.how(pl_module)


def fit(
    texts: Path,
    position: PositionStrategy | None = None,
    how: Callable[[LitLlama], Any] = lambda module: None,
    guard: RopeGuard | None = None,
    resumed: Path | None = None,
    steps: int = 1,
    **options: Any,
) -> Trainer:
    torch.manual_seed(0)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Meddle(how), guard or RopeGuard()], **options,
    )  # fmt: skip
    module = LitLlama(FromScratch(config=CONFIG), position or Interpolate(scale=4))
    data = LongContextData(TextFiles(train=str(texts / "train")), context_length=64)
    trainer.fit(module, data, ckpt_path=None if resumed is None else str(resumed))
    return trainer


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_every_strategy_passes_and_resumes(position: PositionStrategy, texts: Path, tmp_path: Path) -> None:
    fit(texts, position).save_checkpoint(tmp_path / "model.ckpt")
    fit(texts, position, resumed=tmp_path / "model.ckpt", steps=2)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_every_precision_passes(precision: str, texts: Path) -> None:
    fit(texts, precision=precision)


def test_compiled_layers_pass_and_are_not_compiled_for_the_guard(texts: Path, caplog: pytest.LogCaptureFixture) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    def how(module: LitLlama) -> None:
        for layer in module.model.decoder_layers:
            layer.compile(backend=backend)
        RopeGuard().check(module.trainer, module)
        assert not graphs

    with caplog.at_level(logging.INFO):
        fit(texts, how=how)
    assert graphs
    assert "every layer rotates as {'class': 'Interpolate', 'scale': 4" in caplog.text
    assert "at positions up to 255" in caplog.text


class Stock(torch.nn.Module):
    """A rotary embedding with a buffer, as transformers has them."""

    def __init__(self, scale: float = 4) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1e4 ** -(torch.arange(0, 64, 2) / 64) / scale)

    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = (position_ids[..., None].to(self.inv_freq.dtype) * self.inv_freq).repeat(1, 1, 2)
        return angles.cos().to(hidden_states.dtype), angles.sin().to(hidden_states.dtype)


def replace(rotary: torch.nn.Module) -> Callable[[LitLlama], None]:
    def how(module: LitLlama) -> None:
        module.model.llm.model.rotary_emb = rotary

    return how


def swap_strategy(module: LitLlama) -> None:
    rotary = module.model.rotary
    rotary.rotations = LayerRotations(Interpolate(scale=4.1), rotary.rope, rotary.rotations.kinds)


def forget_sine(module: LitLlama) -> None:
    phases = module.model.rotary.phases
    module.model.rotary.phases = lambda *arguments: (phases(*arguments)[0], torch.zeros_like(phases(*arguments)[1]))


def cast_phases(module: LitLlama) -> None:
    phases = module.model.rotary.phases
    module.model.rotary.phases = lambda ids, dtype, *more: tuple(
        each.to(dtype) for each in phases(ids, torch.bfloat16, *more)
    )


def patch_layer(module: LitLlama) -> None:
    """One layer rotates by positions of its own, the rotary embedding is as it was."""
    attention = module.model.decoder_layers[1].self_attn
    wrong = RotaryEmbedding(Extrapolate(), module.rope)

    def forward(hidden_states: Any, position_embeddings: Any, *rest: Any, **kwargs: Any) -> Any:
        cos, sin = wrong.phases(torch.arange(7, 7 + hidden_states.shape[1])[None], hidden_states.dtype)
        return type(attention).forward(attention, hidden_states, (cos, sin), *rest, **kwargs)

    attention.forward = forward


def shorten_positions(module: LitLlama) -> None:
    """Positions are wrapped on their way to the rotary embedding, as by a cache of a fixed length."""
    forward = module.model.rotary.forward
    module.model.rotary.forward = lambda hidden_states, position_ids: forward(
        hidden_states, position_ids % 128 if hidden_states.shape[-1] == 64 else position_ids
    )


def other_attention(module: LitLlama) -> None:
    module.model.decoder_layers[0].self_attn.forward = lambda hidden_states, **kwargs: (hidden_states, None)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (replace(Stock(scale=1)), r"model\.rotary_emb \(Stock\) differs by .* at position \d+ of a context of"),
        (replace(Stock().to(torch.bfloat16)), r"rotary_emb \(Stock\) differs .* something cast or replaced it"),
        (swap_strategy, r"rotary_emb \(RotaryEmbedding\) differs by .*Interpolate.*4.* asks for"),
        (forget_sine, "rotary_emb"),
        (cast_phases, r"differs by 0\.00\d+ at"),
        (patch_layer, "layer 1 of the model rotates its keys otherwise"),
        (shorten_positions, "layer 0 of the model rotates its keys otherwise"),
        (other_attention, "1 of the model's 2 attentions get theirs from lit_pi"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_model_that_rotates_otherwise_does_not_run(how: Callable, said: str, texts: Path) -> None:
    with pytest.raises(UserError, match=said):
        fit(texts, how=how)


def test_a_stock_embedding_that_agrees_passes(texts: Path) -> None:
    fit(texts, how=replace(Stock()))


def test_an_attention_rule_is_looked_at_too(texts: Path) -> None:
    def how(module: LitLlama) -> None:
        module.model.rotary.phases = lambda ids, *more, phases=module.model.rotary.phases: phases(ids + 1, *more)

    with pytest.raises(UserError, match="rotary_emb"):
        fit(texts, SelfExtend(group_size=4, window=16), how)


def test_what_happens_after_training_has_begun_does_not_get_into_a_checkpoint(texts: Path, tmp_path: Path) -> None:
    trainer = fit(texts)
    swap_strategy(trainer.lightning_module)
    with pytest.raises(UserError, match="rotary_emb"):
        trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert not (tmp_path / "model.ckpt").exists()


def test_training_resumes_with_another_strategy_only_if_it_is_allowed_by_name(
    texts: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "model.ckpt"
    fit(texts, Interpolate(scale=4)).save_checkpoint(path)
    fit(texts, Interpolate(target_context=256), resumed=path, steps=2)  # the same rotation
    for position in (Interpolate(scale=4.5), Extrapolate(), SelfExtend(group_size=4, window=16)):
        with pytest.raises(UserError, match=r"was trained with .*'Interpolate', 'scale': 4.*allow_strategy_change to"):
            fit(texts, position, resumed=path, steps=2)
        with pytest.raises(UserError, match="allow_strategy_change"):
            fit(texts, position, resumed=path, steps=2, guard=RopeGuard(allow_strategy_change="YaRN"))
    fit(texts, Extrapolate(), resumed=path, steps=2, guard=RopeGuard(allow_strategy_change="Interpolate"))
    assert any("training goes on with them" in str(warning.message) for warning in recwarn)


def test_an_attention_rule_is_another_strategy_though_its_angles_are_the_same(texts: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    fit(texts, Extrapolate()).save_checkpoint(path)
    for position in (SelfExtend(group_size=4, window=16), SelfExtend(group_size=8, window=16)):
        with pytest.raises(UserError, match="allow_strategy_change to "):
            fit(texts, position, resumed=path, steps=2)
        fit(texts, position).save_checkpoint(path)


def test_a_strategy_that_rotates_otherwise_than_it_did_is_another_one(texts: Path, tmp_path: Path) -> None:
    """As after an update of the strategy's code: names and numbers are the same."""
    path = tmp_path / "model.ckpt"
    fit(texts).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["lit_pi"]["fingerprint"]["probes"][-1]["cos"][-1] += 0.1
    torch.save(content, path)
    with pytest.raises(UserError, match="rotate otherwise"):
        fit(texts, resumed=path, steps=2)


def test_the_command_line_guards_by_default_and_tests_with_any_strategy(tmp_path: Path, tiny: list[str]) -> None:
    where = f"--trainer.default_root_dir={tmp_path}"
    LitPiCLI(["fit", *tiny, where, "--trainer.max_steps=1"])
    other = "--model.position=configs/position/interpolate.yaml"
    with pytest.raises(UserError, match=r"allow_strategy_change to Extrapolate"):
        LitPiCLI(["fit", *tiny, where, other, "--trainer.max_steps=2", "--ckpt_path=last"])
    cli = LitPiCLI(["test", *tiny, where, other, "--ckpt_path=last", "--trainer.limit_test_batches=1"])
    assert cli.model.checkpoint_position == {"class": "Extrapolate"}
    LitPiCLI(["fit", *tiny, where, other, "--trainer.max_steps=2", "--ckpt_path=last",
              "--rope_guard.allow_strategy_change=Extrapolate"])  # fmt: skip


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_and_prediction_are_guarded(
    stage: str, tmp_path: Path, tiny: list[str], texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = LitLlama.configure_model

    def configure(module: LitLlama) -> None:
        setup(module)
        swap_strategy(module)

    monkeypatch.setattr(LitLlama, "configure_model", configure)
    with pytest.raises(UserError, match="rotary_emb"):
        LitPiCLI([stage, *tiny, f"--trainer.default_root_dir={tmp_path}", "--data.predict=Prompts",
                  f"--data.predict.files={texts / 'test'}"])  # fmt: skip
