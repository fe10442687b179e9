"""Proof that the live model rotates as its position strategy says, whatever was loaded, wrapped or patched."""

from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_pi.callbacks.probing import without_trace
from lit_pi.errors import UserError
from lit_pi.models.fingerprint import Phases, phases_of, probed_positions, rotates_as
from lit_pi.models.layers.queries_and_keys import rotated_keys
from lit_pi.models.past import Past
from lit_pi.models.sources.provenance import KEY
from lit_pi.module import LitLlama

PHASE_TOLERANCE = 1e-4
"""Largest difference of cosine and sine in float32 between devices; bfloat16 on their way costs 2e-3 and more."""

KEY_TOLERANCE = 1e-3
"""Largest difference of a key over its length, or `ROUNDINGS` rounding errors of its dtype, where they are more."""

ROUNDINGS = 16


class RopeGuard(Callback):
    """Compares what the live model rotates by with its position strategy, and stops where they differ.

    What the strategy asks for is computed from it alone, in float32 on the CPU. Before training, validation,
    test and prediction (so after loading, sharding, compiling and resuming) two things must agree with it: cosine and
    sine of the model's rotary embedding at both ends of the contexts, and the keys of every layer for one and the
    same token at those positions, in a small forward pass of the whole model. Every checkpoint holds a fingerprint of
    cosine and sine; training resumes only with a strategy that rotates alike.

    Args:
        allow_strategy_change: class name of the strategy that a checkpoint was trained with and that training may
            go on without, with the one given now.
    """

    def __init__(self, allow_strategy_change: str | None = None) -> None:
        self.allow_strategy_change = allow_strategy_change

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare the strategies where training resumes; an evaluation may be of any.

        Raises:
            UserError: the checkpoint was trained with another strategy, which is not the one allowed.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        assert isinstance(pl_module, LitLlama)
        record = checkpoint[KEY]
        before, now = record["config"][KEY]["position"], pl_module.position.describe()
        found = record.get("fingerprint")  # older checkpoints have none
        if before == now if found is None else rotates_as(found, pl_module.position, pl_module.rope):
            return
        change = f"{trainer.ckpt_path} was trained with {before}, and the positions asked for are {now}"
        if before["class"] != self.allow_strategy_change:
            raise UserError(
                f"{change}, which rotate otherwise: give the checkpoint's strategy in model.position, set "
                f"rope_guard.allow_strategy_change to {before['class']} to go on with another one, or start a new run "
                "from its weights (model.llm Pretrained)"
            )
        rank_zero_warn(f"{change}: training goes on with them, as rope_guard.allow_strategy_change allows")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the model's rotation."""
        rank_zero_info(f"Rotary embedding: {self.check(trainer, pl_module)}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the model's rotation."""
        self.check(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the model's rotation."""
        rank_zero_info(f"Rotary embedding: {self.check(trainer, pl_module)}")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the model's rotation."""
        rank_zero_info(f"Rotary embedding: {self.check(trainer, pl_module)}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check cosine and sine, so that no checkpoint says of itself what its model did not do."""
        assert isinstance(pl_module, LitLlama)
        with without_trace(pl_module):
            for length, position_ids in probed_positions(pl_module.position, pl_module.rope).items():
                _check_phases(pl_module, length, position_ids)

    def check(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Check the live model, and say in words what agrees with the strategy.

        Raises:
            UserError: the model rotates otherwise.
        """
        assert isinstance(pl_module, LitLlama)
        probes = probed_positions(pl_module.position, pl_module.rope)
        # Layers would be compiled once more for so few tokens; uncompiled, they compute the same.
        eagerly = torch.compiler.set_stance("force_eager")
        with without_trace(pl_module), trainer.strategy.precision_plugin.forward_context(), eagerly:
            for length, position_ids in probes.items():
                _check_phases(pl_module, length, position_ids)
                _check_keys(trainer, pl_module, length, position_ids)
        return (
            f"every layer rotates as {pl_module.position.describe()} says, at positions up to {max(probes) - 1:,}; "
            f"cosine and sine are within {PHASE_TOLERANCE:g} of it."
        )


def _check_phases(module: LitLlama, length: int, position_ids: Int[Tensor, " positions"]) -> None:
    """Whether every rotary embedding in the model gives the strategy's cosine and sine.

    Raises:
        UserError: one does not.
    """
    assert module.model is not None
    expected = phases_of(module.position, module.rope, position_ids, length)
    module.model.rotary.context_length = length
    rows = position_ids[None].to(module.device)
    hidden_states = torch.empty(*rows.shape, 1, device=module.device, dtype=torch.float32)
    for name, rotary in module.model.llm.named_modules():
        if not name.endswith("rotary_emb"):
            continue
        if rotary is module.model.rotary and module.position.attention_rule is not None:
            cos, sin = module.model.rotary.phases(rows, torch.float32)
        else:
            cos, sin = rotary(hidden_states, rows)
        for wanted, given in zip(expected, (cos, sin), strict=True):
            both_halves = torch.cat((wanted, wanted), dim=-1)
            given = given[0].float().cpu()
            error = (given - both_halves).abs().amax(dim=-1) if given.shape == both_halves.shape else None
            if error is None or not (error <= PHASE_TOLERANCE).all():
                where = (
                    "in shape" if error is None else f"by {error.max():.2g} at {_place(error, position_ids, length)}"
                )
                raise UserError(
                    f"the model's {name} ({type(rotary).__name__}) differs {where} from what "
                    f"{module.position.describe()} asks for: something cast or replaced it after the model was built"
                )


def _check_keys(trainer: Trainer, module: LitLlama, length: int, position_ids: Int[Tensor, " positions"]) -> None:
    """Whether every layer rotates by the strategy's cosine and sine: a token's key, at each position and at 0.

    Each position is a sequence of one token, the same everywhere, so that nothing but the rotation differs.

    Raises:
        UserError: a layer does not.
    """
    model = module.model
    assert model is not None
    rows = position_ids[:, None].to(module.device)
    tokens = torch.zeros_like(rows)
    with rotated_keys(model) as keys:
        if isinstance(trainer.strategy, FSDPStrategy):
            # Its weights are there only inside the wrapper's forward.
            assert trainer.strategy.model is not None
            trainer.strategy.model(tokens, tokens, position_ids=rows, context_length=length)
        else:
            past = Past(torch.ones_like(rows[:, 0]), columns=1, new=0, context_length=length)
            past.position_ids = rows
            model.read(tokens, past)
    if len(keys) != len(model.decoder_layers):
        raise UserError(
            f"{len(keys)} of the model's {len(model.decoder_layers)} layers get their attention from lit_pi: something "
            "replaced the attention of the others after the model was built"
        )
    # Under an attention rule keys are rotated pass by pass, later on.
    turned = torch.zeros_like(position_ids) if module.position.attention_rule is not None else position_ids
    phases = phases_of(module.position, module.rope, turned, length)
    for number, key in enumerate(keys):
        found = key[:, :, 0].float().cpu()
        wanted = _rotated(found[0], phases, module.position.attention_scaling(module.rope, length))
        error = (found - wanted).norm(dim=-1).amax(dim=-1) / wanted.norm(dim=-1).amax().clamp(min=1e-30)
        tolerance = max(KEY_TOLERANCE, ROUNDINGS * torch.finfo(key.dtype).eps)
        if not (error <= tolerance).all():
            raise UserError(
                f"layer {number} of the model rotates its keys otherwise than {module.position.describe()} asks for, "
                f"by {error.max():.2g} of their length at {_place(error, position_ids, length)}: something replaced "
                "its rotary embedding or its forward after the model was built"
            )


def _rotated(
    key: Float[Tensor, "heads head_dim"], phases: Phases, scaling: float
) -> Float[Tensor, "positions heads head_dim"]:
    """The key of position 0, whose angles are zero, as it is at other positions."""
    first, second = (key / scaling).chunk(2, dim=-1)
    cos, sin = (phase[:, None] for phase in phases)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _place(error: Float[Tensor, " positions"], position_ids: Int[Tensor, " positions"], length: int) -> str:
    worst = int(error.nan_to_num(float("inf")).argmax())
    return f"position {int(position_ids[worst])} of a context of {length} tokens"
