"""Queries and keys of a running model, layer by layer, before and after they are rotated."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lit_pi.models.language_model import LanguageModel

Watcher = Callable[[int, Float[Tensor, "batch seq heads head_dim"], Float[Tensor, "batch seq kv_heads head_dim"]], None]
"""Called with the number of a layer, its queries and its keys, while the model is in that layer's forward."""


@contextmanager
def watched(model: LanguageModel, watcher: Watcher) -> Iterator[None]:
    """Hand unrotated queries and keys of every forward to a watcher, which must not keep them: they fill a memory."""
    with ExitStack() as hooks:
        hooks.enter_context(torch.compiler.set_stance("force_eager"))  # compiled layers know no later hooks
        hooks.callback(setattr, model, "prunes", model.prunes)
        model.prunes = False
        for number, layer in enumerate(model.decoder_layers):
            attention = layer.get_submodule("self_attn")
            seen: dict[str, Tensor] = {}
            hook = partial(_hook, watcher=watcher, number=number, head_dim=attention.head_dim, seen=seen)
            for name in ("q", "k"):
                # Qwen3 normalises queries and keys; what it normalises is what it rotates.
                source = getattr(attention, f"{name}_norm", None) or getattr(attention, f"{name}_proj")
                hooks.callback(source.register_forward_hook(partial(hook, name=name)).remove)
        yield


@contextmanager
def attended_keys(model: LanguageModel) -> Iterator[list[Float[Tensor, "batch kv_heads keys head_dim"]]]:
    """Collect the keys that attention gets, layer after layer; under an attention rule they are not rotated yet."""
    name, keys = model.llm.config._attn_implementation, []
    attention = ALL_ATTENTION_FUNCTIONS[name]

    def spy(module: nn.Module, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        keys.append(key)
        return attention(module, query, key, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS[name] = spy
    try:
        with torch.compiler.set_stance("force_eager"):
            yield keys
    finally:
        del ALL_ATTENTION_FUNCTIONS[name]


def _hook(
    module: nn.Module,
    arguments: Any,
    output: Tensor,
    *,
    name: str,
    watcher: Watcher,
    number: int,
    head_dim: Any,
    seen: dict[str, Tensor],
) -> None:
    seen[name] = output.unflatten(-1, (-1, head_dim)) if output.dim() == 3 else output
    if len(seen) == 2:
        watcher(number, seen.pop("q"), seen.pop("k"))
