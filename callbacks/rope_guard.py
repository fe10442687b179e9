"""Proof that the live model rotates as its position strategy says, whatever was loaded, wrapped or patched."""

from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_pi.callbacks.probing import without_trace
from lit_pi.errors import UserError
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.equality.stock import as_stock
from lit_pi.models.fingerprint import phases_of, probed_positions, rotates_as
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.layers.queries_and_keys import attended_keys
from lit_pi.models.rotary import Layout, in_layout, plain_phases
from lit_pi.models.sources.provenance import KEY, layer_kinds
from lit_pi.module import LitLlama
from lit_pi.positions import LayerRotations, PositionStrategy, Rotation

PHASE_TOLERANCE = 1e-4
"""Largest difference of cosine and sine in float32 between devices; bfloat16 on their way costs 2e-3 and more."""

KEY_TOLERANCE = 1e-3
"""Largest difference of a key over its length, or `ROUNDINGS` rounding errors of its dtype, where they are more."""

ROUNDINGS = 16

TOKENS = 8
"""Tokens that are probed: one may embed to zero, as that for padding does."""


def _strategies(kind: type[PositionStrategy] = PositionStrategy) -> set[str]:
    """Names of the strategies that are known here."""
    return {name for each in kind.__subclasses__() for name in (each.__name__, *_strategies(each))}


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
        allowed = None if allow_strategy_change is None else allow_strategy_change.rpartition(".")[2]
        if allow_strategy_change == allowed is not None and allowed not in _strategies():
            raise UserError(
                f"rope_guard.allow_strategy_change is {allowed}, and there is no position strategy of that name: name "
                f"one of {', '.join(sorted(_strategies()))}, or one of your own by its import path"
            )
        self.allow_strategy_change = allowed

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
        if before == now if found is None else rotates_as(found, pl_module.rotations):
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
            for length, position_ids in probed_positions(pl_module.rotations).items():
                _check_phases(pl_module, length, position_ids)

    def check(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Check the live model, and say in words what agrees with the strategy.

        Raises:
            UserError: the model rotates otherwise.
        """
        assert isinstance(pl_module, LitLlama)
        probes = probed_positions(pl_module.rotations)
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
    model = module.model
    assert model is not None
    rotary, expected = model.rotary, _expected(module)
    rotary.context_length = length
    rows = position_ids[None].to(module.device)
    hidden_states = torch.empty(*rows.shape, 1, device=module.device, dtype=torch.float32)
    for name, found in model.llm.named_modules():
        if not name.endswith("rotary_emb"):
            continue
        for number, rotation in enumerate(expected.distinct):
            own = found is rotary
            live = rotary.rotations.distinct[min(number, len(rotary.rotations.distinct) - 1)]
            given = rotary.phases(rows, torch.float32, live) if own else found(hidden_states, rows)
            wanted = phases_of(*rotation, position_ids, length)
            for ours, theirs in zip(wanted, plain_phases(given, rotary.layout), strict=True):
                theirs = theirs[0].float().cpu()
                error = (theirs - ours).abs().amax(dim=-1) if theirs.shape == ours.shape else None
                if error is None or not (error <= PHASE_TOLERANCE).all():
                    where = (
                        "in shape"
                        if error is None
                        else f"by {error.max():.2g} at {_place(error, position_ids, length)}"
                    )
                    raise UserError(
                        f"the model's {name} ({type(found).__name__}) differs {where} from what "
                        f"{rotation.position.describe()} asks for: something cast or replaced it after the model was "
                        "built"
                    )


def _check_keys(trainer: Trainer, module: LitLlama, length: int, position_ids: Int[Tensor, " positions"]) -> None:
    """Whether every layer rotates by the strategy's cosine and sine, as transformers' own layer does by the same.

    Tokens of several embeddings, each at each position, in sequences of one token, so that nothing but the rotation
    differs. A layer that does not rotate in transformers may not rotate here either.

    Raises:
        UserError: a layer does not.
    """
    model = module.model
    assert model is not None
    vocabulary = torch.arange(TOKENS) * (model.llm.config.vocab_size - 1) // (TOKENS - 1)
    tokens = vocabulary.repeat_interleave(len(position_ids))[:, None].to(module.device)
    rows = position_ids.repeat(TOKENS)[:, None].to(module.device)
    # Under an attention rule keys are rotated pass by pass, later on.
    turned = torch.zeros_like(position_ids) if module.position.attention_rule is not None else position_ids
    expected, mesh = _expected(module), model.sequence_mesh
    model.sequence_mesh = None  # rows of one token are not split over ranks
    try:
        found = _keys(trainer, model, tokens, rows, length)
    finally:
        model.sequence_mesh = mesh
    with as_stock(
        model, _GivenPhases(expected, model.rotary.layout, length, turned.repeat(TOKENS)[:, None]), ATTENTION
    ):
        wanted = _keys(trainer, model, tokens, rows, length)
    if len(found) != len(wanted):
        raise UserError(
            f"{len(found)} of the model's {len(wanted)} attentions get theirs from lit_pi: something replaced the "
            "others after the model was built"
        )
    calls = len(found) // len(model.decoder_layers)
    for number, (key, right) in enumerate(zip(found, wanted, strict=True)):
        layer = number // max(calls, 1)
        key, right = (states[:, :, 0].float().cpu() for states in (key, right))
        if not right.isfinite().all():
            raise UserError(
                f"layer {layer} of the model gives keys that are not finite: its weights, or those before it, are not"
            )
        size = right.norm(dim=-1).amax(dim=-1)
        if not (size > 0).any():
            raise UserError(
                f"layer {layer} of the model gives keys of length zero for all of {TOKENS} tokens, so that whether it "
                "rotates cannot be told: are its weights loaded?"
            )
        error = (key - right).norm(dim=-1).amax(dim=-1) / size.clamp(min=float(size.max()) * 1e-3)
        tolerance = max(KEY_TOLERANCE, ROUNDINGS * torch.finfo(found[number].dtype).eps)
        if not (error <= tolerance).all():
            position = expected.distinct[expected.of_layer[layer]].position
            raise UserError(
                f"layer {layer} of the model rotates its keys otherwise than {position.describe()} asks for, by "
                f"{error.max():.2g} of their length at {_place(error, rows[:, 0].cpu(), length)}: something replaced "
                "its rotary embedding or its forward after the model was built"
            )


class _GivenPhases(nn.Module):
    """A rotary embedding of phases that were computed from the strategy alone, for each kind of layer.

    Args:
        rotations: the strategies.
        layout: how the model wants its angles.
        length: tokens of the context.
        position_ids: positions `[rows, 1]`, whatever the model asks for.
    """

    def __init__(
        self, rotations: LayerRotations, layout: Layout, length: int, position_ids: Int[Tensor, "rows 1"]
    ) -> None:
        super().__init__()
        self._rotations, self._layout, self._length, self._position_ids = rotations, layout, length, position_ids

    def forward(self, hidden_states: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
        """The first layer's phases; the others get their own by `phases_of_layer`."""
        self._given = [self._phases(rotation, hidden_states) for rotation in self._rotations.distinct]
        return self._given[0]

    def phases_of_layer(self, layer: int) -> Any:
        """Those of a layer."""
        return self._given[self._rotations.of_layer[layer]]

    def _phases(self, rotation: Rotation, hidden_states: Tensor) -> Any:
        cos, sin = phases_of(*rotation, self._position_ids[:, 0], self._length)
        scaling = rotation.position.attention_scaling(rotation.rope, self._length)
        angles = torch.atan2(sin.double(), cos.double())[:, None].to(hidden_states.device)
        given = in_layout(angles, scaling, self._layout, hidden_states.dtype)
        return given.to(torch.complex64) if isinstance(given, Tensor) else given


def _keys(
    trainer: Trainer, model: LanguageModel, tokens: Int[Tensor, "rows 1"], rows: Int[Tensor, "rows 1"], length: int
) -> list[Tensor]:
    with attended_keys(model) as keys:
        root = trainer.strategy.model if isinstance(trainer.strategy, FSDPStrategy) else model
        assert root is not None
        root(tokens, tokens, position_ids=rows, context_length=length)
    return keys


def _expected(module: LitLlama) -> LayerRotations:
    """By what each layer is to rotate, whatever the live model does."""
    assert module.model is not None
    return LayerRotations(module.position, module.rope, layer_kinds(module.model.llm.config))


def _place(error: Float[Tensor, " positions"], position_ids: Int[Tensor, " positions"], length: int) -> str:
    worst = int(error.nan_to_num(float("inf")).argmax())
    return f"position {int(position_ids[worst])} of a context of {length} tokens"
