"""How a parallelism and a device lay a step's memory out, where it differs from one process on a CPU."""

from typing import NamedTuple

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy

from lit_pi.models import LanguageModel
from lit_pi.parallel import FSDP2
from lit_pi.planning.ledger import Part

CUBLAS_WORKSPACE = 32 * 2**20
"""Bytes that torch gives cuBLAS on Hopper GPUs (8 MiB on older ones)."""


class Layout(NamedTuple):
    """The memory of each device, and what is in it.

    Attributes:
        shares: bytes on a device for each byte of a part in that step.
        host_shares: bytes in the CPU's memory, beside a GPU, for each byte of a part in that step.
        forward: bytes beside them in the forward pass.
        backward: bytes beside them in the backward pass.
        attention: bytes beside those while attention's backward runs.
        end: bytes beside them when the backward pass ends.
    """

    shares: dict[Part, float]
    host_shares: dict[Part, float]
    forward: int
    backward: int
    attention: int
    end: int


def layout(
    model: LanguageModel,
    strategy: Strategy,
    world: int,
    master: torch.dtype,
    optimizer_growth: float,
    on_gpu: bool,
    tokens: int,
    gathers: bool,
) -> Layout:
    """The layout of a model of any dtype.

    FSDP2: states are sharded in the master dtype. Gathered in the compute dtype are the root's own weights (from the
    forward's start to the backward's end), the layer at work and the one that arrives meanwhile; gradients of a layer
    stand whole in the compute dtype and once more in the dtype that is reduced. So do the root's, when the backward
    pass ends; until then those of the output layer wait. Where sequences are split, a layer's keys and values come from
    all ranks, and in the backward pass their gradients stand beside them. With `cpu_offload` the host holds a GPU's
    states.
    DDP: gradients stand in buckets too.
    GPU: FlashAttention-2 and cuDNN sum the queries' gradients in float32, beside one float32 a query and head; the
    thread that runs the backward pass has a workspace of its own.

    Args:
        model: the model that trains.
        strategy: Lightning's strategy (the parallelism).
        world: number of devices.
        master: dtype of the weights that the optimizer changes.
        optimizer_growth: bytes of the optimizer's states under such weights for each byte under the model's own.
        on_gpu: whether the devices are GPUs.
        tokens: tokens of a batch on one device.
        gathers: whether the step itself gathers keys and values.
    """
    config = model.llm.config
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kernels = tokens * heads * (head_dim + 1) * 4 if on_gpu else 0
    fixed = CUBLAS_WORKSPACE if on_gpu else 0
    if not isinstance(strategy, FSDP2):
        shares = {Part.GRADIENTS: 2.0} if isinstance(strategy, DDPStrategy) else {}
        return Layout(shares, {}, fixed, 2 * fixed, kernels, 2 * fixed)
    compute, reduced = strategy.compute_dtype, strategy.reduce_dtype
    layers = [_sizes(layer) for layer in model.decoder_layers]
    largest, trained = max(size for size, _ in layers), max(size for _, size in layers)
    whole, whole_trained = _sizes(model)
    root, root_trained = (
        whole - sum(size for size, _ in layers),
        whole_trained - sum(size for _, size in layers),
    )
    gathered = (root + 2 * largest) * compute.itemsize
    keys = 0
    if (ranks := strategy.context_parallel_size) > 1 and not gathers:
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        keys = 2 * tokens * ranks * kv_heads * head_dim * compute.itemsize
    late = 0 if config.tie_word_embeddings else _sizes(model.llm.get_input_embeddings())[0]
    waiting = max(root_trained - late, 0) * compute.itemsize
    layer_gradients, root_gradients = (size * (compute.itemsize + reduced.itemsize) for size in (trained, root_trained))
    growth = master.itemsize / compute.itemsize
    states = {Part.WEIGHTS: growth / world, Part.GRADIENTS: growth / world, Part.OPTIMIZER: optimizer_growth / world}
    shares, host_shares = (dict.fromkeys(states, 0.0), states) if on_gpu and strategy.cpu_offload else (states, {})
    forward = fixed + gathered + keys
    backward = forward + fixed + keys + waiting + layer_gradients
    return Layout(shares, host_shares, forward, backward, kernels, 2 * fixed + gathered + root_gradients)


def _sizes(module: torch.nn.Module) -> tuple[int, int]:
    """Parameters, and those that train."""
    parameters = list(module.parameters())
    return sum(each.numel() for each in parameters), sum(each.numel() for each in parameters if each.requires_grad)
