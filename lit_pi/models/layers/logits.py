"""How a model makes logits of hidden states."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_pi.errors import UserError


class Logits(NamedTuple):
    """A product with a matrix, and what follows it.

    Attributes:
        weight: the output layer's matrix, which may be that of the input embeddings.
        bias: what is added to the product.
        scale: factor on both.
        cap: logits z become c tanh(z / c) with this c, at last.
    """

    weight: Float[Tensor, "vocab hidden"]
    bias: Float[Tensor, " vocab"] | None = None
    scale: float = 1.0
    cap: float | None = None


class LogitScale(NamedTuple):
    """A factor and a soft cap, which follow the product: see `Logits`."""

    scale: float = 1.0
    cap: float | None = None


def logits_of(llm: PreTrainedModel, scale: LogitScale) -> Logits:
    """The way in which a model makes its logits, with the weights that it has now."""
    head: Any = llm.get_output_embeddings()
    return Logits(head.weight, head.bias, *scale)


def logit_scale(llm: PreTrainedModel) -> LogitScale:
    """Find out what a model does with the product of its output layer, by handing it products.

    Raises:
        UserError: the output layer is no matrix, or something else than a factor and a soft cap follows.
    """
    head = llm.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"{type(llm).__name__} makes its logits by a {type(head).__name__}: lit_pi needs an output layer that is "
            "a matrix, as decoders of the LLaMA family have it"
        )
    products = torch.tensor([[[1e-3, 1.0, -2.0, 17.0, 1e4, -1e6]]], dtype=torch.float64, device="cpu")
    found = _after(llm, head, products).double()
    scale = _rounded(float(found[0, 0, 0] / 1e-3))
    cap = None if found[0, 0, -1].abs() > 0.9 * abs(scale) * 1e6 else _rounded(float(-found[0, 0, -1]))
    wanted = products * scale if cap is None else cap * torch.tanh(products * scale / cap)
    if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-6):
        raise UserError(
            f"{type(llm).__name__} makes its logits in a way of its own, and not by a matrix, a factor and a soft cap: "
            "lit_pi does not extend it"
        )
    return LogitScale(scale, cap)


def _after(llm: PreTrainedModel, head: nn.Module, products: Tensor) -> Tensor:
    """The logits that a model makes of what its output layer gives."""
    inner = llm.base_model if llm.base_model is not llm else llm.get_submodule("model")
    run: Any = type(llm).forward
    covered = {module: vars(module).get("forward") for module in (inner, head)}
    hidden_states = torch.zeros(1, 1, 1, dtype=products.dtype, device="cpu")
    vars(inner)["forward"] = lambda *args, **kwargs: _Output(hidden_states)
    vars(head)["forward"] = lambda states: products
    try:
        with torch.no_grad():
            return run(llm, input_ids=torch.zeros(1, 1, dtype=torch.long, device="cpu"), use_cache=False).logits
    finally:
        for module, forward in covered.items():
            vars(module).pop("forward")
            if forward is not None:
                vars(module)["forward"] = forward


class _Output(SimpleNamespace):
    """The output of a decoder, of which nothing but hidden states is there."""

    def __init__(self, hidden_states: Tensor) -> None:
        super().__init__(last_hidden_state=hidden_states)

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int) -> Tensor:
        return self.last_hidden_state


def _rounded(number: float) -> float:
    """Without the rounding of float32."""
    return float(f"{number:.6g}")
