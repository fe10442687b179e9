"""The comparison of a model here with stock transformers, under the positions of its own config."""

import copy
import json
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.equality.blame import fields_to_blame
from lit_pi.models.equality.stock import as_stock, with_own_positions
from lit_pi.models.equality.twin import WINDOW, twin_of
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.layers.queries_and_keys import attended_keys
from lit_pi.models.layers.stock_losses import stock_losses
from lit_pi.models.past import Past
from lit_pi.models.sources.provenance import KEY, head_dim_of, rope_of
from lit_pi.positions import FromConfig, PositionStrategy

TOLERANCE = 1e-4
"""Largest difference of a token's loss in float32, in nats."""

LENGTHS = (WINDOW - 4, 2 * WINDOW + 1, 6 * WINDOW + 1)
"""Tokens of the twin's rows: below its windows, beyond two of them, and beyond several."""

TOKENS = 128
"""Tokens of the real size's row at most; fewer where a forward takes more than `OPERATIONS`."""

OPERATIONS = {"cpu": 1e10, "cuda": 1e13}
"""Multiplications and additions of a forward of the real size, at most, which take a second or so."""

ROUNDINGS = 64
"""Rounding errors of the model's own dtype by which losses of the real size may differ, each of the loss itself."""


class Equality(NamedTuple):
    """How far a model is from stock transformers.

    Attributes:
        lengths: tokens of the rows that were compared.
        difference: largest difference of a token's loss, in nats.
        tolerance: largest difference that is allowed.
        dtype: dtype of the computation.
        unrotated: layers of the twin that do not rotate, whatever the positions are.
    """

    lengths: list[int]
    difference: float
    tolerance: float
    dtype: str
    unrotated: tuple[int, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the model is the stock model; not where the difference is no number."""
        return self.difference <= self.tolerance


def check_kind(config: PreTrainedConfig, position: PositionStrategy | None = None) -> Equality:
    """Prove by a small twin in float32 that models of a config are computed here as stock transformers does.

    Losses of rows below and beyond windows, with positions up to twice the context and more, of packed documents and
    of tokens read one by one with a cache.

    Args:
        config: the model's config.
        position: the strategy that it is to rotate by.

    Raises:
        UserError: they are not, with the config's fields that are to blame; or the strategy has an attention rule, and
            layers do not rotate.
    """
    head_dim_of(config)
    fields = {name: value for name, value in config.to_dict().items() if name not in (KEY, "_name_or_path", "dtype")}
    found = _check_kind(json.dumps(fields, sort_keys=True, default=str), config.model_type)
    if position is not None and position.attention_rule is not None and found.unrotated:
        raise UserError(
            f"{type(position).__name__} has an attention rule, which rotates in every layer, and layer "
            f"{found.unrotated[0]} of this {config.model_type} model has no positions: choose a strategy without a rule"
        )
    return found


@lru_cache(maxsize=64)
def _check_kind(fields: str, model_type: str) -> Equality:
    config = AutoConfig.for_model(model_type, **{k: v for k, v in json.loads(fields).items() if k != "model_type"})
    try:
        found = compare_twins(config)
    except UserError:
        raise
    except Exception as error:  # whatever a model of a stranger's kind does with what it is given
        off = f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'})"
    else:
        if found.holds:
            return found
        off = f"by {found.difference:.2g} nats a token"
    blamed = fields_to_blame(config, lambda changed: compare_twins(changed).holds)
    raise UserError(
        f"a {model_type} model with this config is not computed here as stock transformers computes it {off}; to blame "
        f"is {blamed}: lit_pi does not extend such a model"
    )


def compare_twins(config: PreTrainedConfig) -> Equality:
    """Compare a small model of a config here with the same one in stock transformers, on the CPU and in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.autocast("cpu", enabled=False):
            return _compare(config)
    finally:
        torch.set_default_dtype(before)


def _compare(config: PreTrainedConfig) -> Equality:
    stock = twin_of(config)
    here = copy.deepcopy(stock)
    here.set_attn_implementation(ATTENTION)
    model = LanguageModel(here, FromConfig(), rope_of(here.config))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(here.config.vocab_size, (2, max(LENGTHS) + 1), generator=generator)
    found = [_rows_differ(model, stock, tokens, length) for length in LENGTHS]
    if not model.rotary.asked:
        raise UserError(
            f"the layers of a {config.model_type} model with this config do not take their phases from the model's one "
            "rotary embedding: lit_pi cannot give them others"
        )
    # Ascending, because transformers' `dynamic` type does not shrink again.
    reach = 2 * max(model.rotations.target_context, model.rope.original_context)
    found += [_spread_differs(model, stock, tokens[:1], reach), _packed_differs(model, tokens)]
    found.append(_decoded_differs(model, tokens))
    difference = float(torch.stack(found).max())
    return Equality(list(LENGTHS), difference, TOLERANCE, "float32", _unrotated(model, tokens[0, :4, None]))


@torch.no_grad()
def _unrotated(model: LanguageModel, tokens: Int[Tensor, "rows 1"]) -> tuple[int, ...]:
    """Layers whose keys are the same at all positions, in rows of one token."""
    keys = []
    for place in (0, 1):
        with attended_keys(model) as found:
            model(tokens, tokens, position_ids=torch.full_like(tokens, place))
        keys.append(found)
    calls = len(keys[0]) // len(model.decoder_layers)
    same = [torch.equal(*pair) for pair in zip(*keys, strict=True)]
    return tuple(number // calls for number, still in enumerate(same) if still and number % calls == 0)


@torch.no_grad()
def _rows_differ(model: LanguageModel, stock: PreTrainedModel, tokens: Tensor, length: int) -> Tensor:
    ids, targets = tokens[:, :length], tokens[:, 1 : length + 1]
    return _largest(model(ids, targets), stock_losses(stock, ids, targets))


@torch.no_grad()
def _spread_differs(model: LanguageModel, stock: PreTrainedModel, tokens: Tensor, reach: int) -> Tensor:
    """With positions that leave ever larger gaps."""
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    positions = spread(ids.shape[1], reach)[None]
    ours = model(ids, targets, position_ids=positions, context_length=int(positions.max()) + 1)
    return _largest(ours, stock_losses(stock, ids, targets, positions))


@torch.no_grad()
def _packed_differs(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Two documents in a row, and each alone."""
    ids, targets, first = tokens[:, :-1], tokens[:, 1:], tokens.shape[1] // 3
    parts = [slice(0, first), slice(first, ids.shape[1])]
    places = [torch.arange(part.stop - part.start) for part in parts]
    packed = model(
        ids,
        targets,
        position_ids=torch.cat(places)[None].expand_as(ids),
        document_ids=torch.cat([torch.full_like(place, number) for number, place in enumerate(places)]).expand_as(ids),
        context_length=ids.shape[1],
    )
    alone = [model(ids[:, part], targets[:, part], context_length=ids.shape[1]) for part in parts]
    return _largest(packed, torch.cat(alone, dim=1))


@torch.no_grad()
def _decoded_differs(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Rows of unequal length read at once, and on from there token by token."""
    prompts, steps = torch.tensor([2 * WINDOW + 3, WINDOW - 5]), 3
    columns = int(prompts.max())
    length = columns + steps
    whole = tokens[:, : length + 1]
    past = Past(prompts, columns, steps, length)
    model.read(whole[:, :columns], past)
    found = []
    for step in range(steps):
        follows = torch.stack([whole[row, prompts[row] + step] for row in range(2)])[:, None]
        logits = model.read(follows, past)[:, 0]
        for row in range(2):
            stop = int(prompts[row]) + step + 1
            wanted = whole[row, stop : stop + 1]
            full = model(whole[row, None, :stop], wanted[None], scored=torch.tensor([stop - 1]), context_length=length)
            found.append((cross_entropy(logits[row, None], wanted) - full[0, 0]).abs())
    return torch.stack(found).max()


def check_weights(model: LanguageModel, root: nn.Module, dtype: torch.dtype) -> Equality:
    """Compare a model at its real size and with its own weights, in a row of few tokens.

    Args:
        model: the model as it trains or is measured, sharded or not, in evaluation mode.
        root: the module to call: the model, or what gathers its weights around it.
        dtype: dtype in which matrices are multiplied.

    Raises:
        UserError: it computes otherwise than stock transformers by more than rounding explains.
    """
    device = next(model.llm.parameters()).device
    operations = OPERATIONS.get(device.type, OPERATIONS["cpu"])
    length = int(min(TOKENS, max(operations / model.llm.num_parameters(), 8)))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.llm.config.vocab_size, (1, length + 1), generator=generator).to(device)
    positions = spread(length, 2 * max(model.rotations.target_context, model.rope.original_context))[None].to(device)
    options = {"position_ids": positions, "context_length": int(positions.max()) + 1}
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        with with_own_positions(model):
            ours = root(ids, targets, **options).float()
        with as_stock(model):
            theirs = root(ids, targets, **options).float()
    rounding = torch.finfo(dtype).eps
    if dtype == torch.float32 and device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
        rounding = 2**-10  # TF32
    tolerance = max(TOLERANCE, ROUNDINGS * rounding * max(1.0, float(theirs.mean())))
    name = str(dtype).removeprefix("torch.")
    found = Equality([length], float(_largest(ours, theirs)), tolerance, name)
    if not found.holds:
        raise UserError(
            f"the model computes otherwise than stock transformers from the same weights, by {found.difference:.2g} "
            f"nats a token where rounding to {name} explains {tolerance:.2g}: something was put over its layers or its "
            "weights after it was loaded"
        )
    return found


def spread(length: int, reach: int) -> Int[Tensor, " length"]:
    """So many ascending positions up to `reach`: one after the other at first, then ever sparser."""
    steps = torch.logspace(0, 1, length, base=max(reach, 2), dtype=torch.float64).round().long() - 1
    return torch.maximum(steps, torch.arange(length))


def _largest(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).abs().max()
