"""A training step of the real model, on tensors without data."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from lit_pi.batches import IGNORE, TrainingBatch
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.attention.packages import FLASH_ATTN
from lit_pi.models.attention.sequence_split import has_ring
from lit_pi.models.layers.compilation import compiles
from lit_pi.models.layers.layer_forward import CheckpointingMode
from lit_pi.models.sources.filling import replace_parameters
from lit_pi.module import LitLlama
from lit_pi.parallel import FSDP2
from lit_pi.planning.compiled import keep_as_compiled
from lit_pi.planning.layout import layout
from lit_pi.planning.ledger import Ledger, Part, Work, storages

WEIGHTS = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
"""Dtypes of weights by Lightning's precision, float32 for all others."""

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Trace(NamedTuple):
    """Memory and work of one device in a step.

    Attributes:
        context_length: tokens of a sequence.
        peak: bytes by part when most are held.
        work: FLOP, or bytes read and written, by kind of work.
        host: bytes in the CPU's memory beside a GPU.
        kept: bytes of activations that the forward pass leaves to the backward pass.
    """

    context_length: int
    peak: dict[Part, float]
    work: Counter[Work]
    host: float = 0.0
    kept: float = 0.0

    @property
    def bytes(self) -> float:
        """Bytes on the device at the peak."""
        return sum(self.peak.values())


class Tracer:
    """Runs steps as `fit` would: the model with its activation checkpointing and adapter, and its optimizer.

    torch's fake tensors run the operations of a CPU; `layout` adds what differs on GPUs and under a parallelism. Of a
    sequence that is split over ranks, one rank's part is run, with the others' keys and values where a dense mask needs
    them.

    Args:
        trainer: gives precision, parallelism and devices.
        module: gives everything about the model.
        data: gives the size of the batches.
        on_step: called after each step.

    Attributes:
        model: the model, without data.
        context_ranks: ranks that split a sequence.
        dtype: dtype of the computation.

    Raises:
        UserError: a step is asked for that gathers keys and values, in a process of a group that is at work.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LitLlama,
        data: LongContextData,
        on_step: Callable[[], object] = lambda: None,
    ) -> None:
        self._module = module
        self._data = data
        self._on_step = on_step
        self._strategy = trainer.strategy
        self.context_ranks = self._strategy.context_parallel_size if isinstance(self._strategy, FSDP2) else 1
        self._accumulates = trainer.accumulate_grad_batches > 1
        self._world = trainer.num_nodes * trainer.num_devices
        precision = str(trainer.precision)
        self._master = WEIGHTS.get(precision, torch.float32)
        self._autocast = AUTOCAST.get(precision)
        weights = self._strategy.compute_dtype if isinstance(self._strategy, FSDP2) else self._master
        self.dtype = self._autocast or weights
        self._device = self._strategy.root_device
        in_ring = module.position.attention_rule is None and has_ring(self._device, weights)
        self._gathers = self.context_ranks > 1 and not in_ring
        self._compiled = (
            compiles(module.compile_layers, self._device)
            and self.context_ranks == 1
            and module.position.attention_rule is None
        )
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.model = self._build(weights)
        # Before fake tensors: some optimizers make tables when they first step, of numbers that those do not have.
        self._optimizer_growth = _state_bytes(module, self._master) / max(_state_bytes(module, weights), 1)
        with self._fake:
            _materialise(self.model)
            self._optimizer: Optimizer = module.make_optimizer(
                each for each in self.model.parameters() if each.requires_grad
            )
        for group in self._optimizer.param_groups:
            # What torch chooses on GPUs, with tensors between that its loop on CPUs does not have.
            if self._device.type == "cuda" and not group.get("fused") and group.get("foreach", False) is None:
                group["foreach"] = True

    def _build(self, weights: torch.dtype) -> LanguageModel:
        before = torch.get_default_dtype()
        torch.set_default_dtype(weights)
        try:
            with torch.device("meta"):
                llm, rope = self._module.source.skeleton()
            model = LanguageModel(llm, self._module.position, rope).train()
            if self._module.adapter is not None:
                with torch.device("meta"):
                    self._module.adapter.install(model)
        finally:
            torch.set_default_dtype(before)
        self._module.activation_checkpointing.install(model, self._device.type == "cuda")
        if self._compiled:
            for layer in model.decoder_layers:
                keep_as_compiled(layer)
        return model

    def set_modes(self, modes: Sequence[CheckpointingMode]) -> None:
        """Set each layer's mode of activation checkpointing."""
        for layer, mode in zip(self.model.layer_forwards, modes, strict=True):
            layer.mode = mode

    def step(self, context_length: int) -> Trace:
        """The second step of a run at this many tokens, with the states that the first one made."""
        own = math.ceil(context_length / self.context_ranks)
        tokens = self._data.batch_size * own
        on_gpu = self._device.type == "cuda"
        laid = layout(
            self.model, self._strategy, self._world, self._master, self._optimizer_growth, on_gpu,
            tokens, self._gathers,
        )  # fmt: skip
        parameters = list(self.model.parameters())
        trained = [each for each in parameters if each.requires_grad]
        ledger = Ledger(self.model.llm.config.vocab_size, laid.shares, laid.host_shares, laid.attention)
        hooks = [
            each.register_post_accumulate_grad_hook(lambda done: ledger.own(Part.GRADIENTS, [_gradient(done)]))
            for each in trained
        ]
        with self._splitting(), self._fake, ledger, torch.compiler.set_stance("force_eager"):
            ledger.own(Part.WEIGHTS, parameters)
            ledger.own(Part.OPTIMIZER, _tensors(self._optimizer))
            # The first step makes states, and gradients that the second one accumulates into.
            for start in (False, True) if self._accumulates or not self._optimizer.state else (True,):
                if start:
                    ledger.start()
                with ledger.phase(Part.ACTIVATIONS, {Part.WORKSPACE: laid.forward}):
                    loss = self._loss(context_length if self._gathers else own, context_length)
                kept = ledger.held(Part.ACTIVATIONS)
                with ledger.phase(Part.WORKSPACE, {Part.WORKSPACE: laid.backward}):
                    loss.backward()
                with ledger.phase(Part.WORKSPACE, {Part.WORKSPACE: laid.end}):
                    pass
                with ledger.phase(Part.OPTIMIZER):
                    self._optimizer.step()
                    ledger.own(Part.OPTIMIZER, _tensors(self._optimizer))
                if start or not self._accumulates:
                    self._optimizer.zero_grad()
                del loss
        for hook in hooks:
            hook.remove()
        host = ledger.host
        if laid.host_shares and not all(group.get("fused") for group in self._optimizer.param_groups):
            # The optimizer steps there, one weight at a time, with two copies of it in float32.
            host += 2 * torch.float32.itemsize * max(each.numel() for each in trained) / self._world
        self._on_step()
        if not self._gathers:  # queries of one rank, keys of all
            ledger.work[Work.ATTENTION] *= self.context_ranks
        return Trace(context_length, ledger.peak, ledger.work, host, kept)

    @contextmanager
    def _splitting(self) -> Iterator[None]:
        """Let the model gather keys and values of ranks that are not there."""
        if not self._gathers:
            yield
            return
        if distributed.is_initialized():
            raise UserError("a split of sequences cannot be planned in a process that trains: plan it in a fresh one")
        from torch.testing._internal.distributed.fake_pg import FakeStore  # without a stable name yet

        distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=self.context_ranks)
        try:
            self.model.sequence_mesh = init_device_mesh("cpu", (self.context_ranks,))
            yield
        finally:
            self.model.sequence_mesh = None
            distributed.destroy_process_group()

    def _loss(self, seq: int, context_length: int) -> Tensor:
        batch = self._batch(seq)
        # Compiled layers cast their weights for themselves; others leave the copies until the forward pass ends.
        autocast = (
            torch.autocast("cpu", self._autocast, cache_enabled=not self._compiled) if self._autocast else nullcontext()
        )
        with autocast:
            token_nll = self.model(
                batch.input_ids,
                batch.targets,
                position_ids=batch.position_ids,
                document_ids=batch.document_ids,
                context_length=self._module.train_positions.context_length(context_length),
            )
        return token_nll.sum() / (batch.targets != IGNORE).sum().clamp(min=1)

    def _batch(self, seq: int) -> TrainingBatch:
        ids = torch.zeros(self._data.batch_size, seq, dtype=torch.long)
        # FlexAttention and FlashAttention's packages isolate documents without a matrix of all pairs of tokens.
        by_matrix = self._module.attention != FLASH_ATTN and not self.model.isolates_by_blocks(self._device)
        matrix = self._data.packing == "packed" and by_matrix
        return TrainingBatch(ids, ids.clone(), ids.clone(), ids.clone() if matrix else None)


def _materialise(model: nn.Module) -> None:
    """Move a model from the meta device."""
    replace_parameters(model, lambda weight: torch.empty_like(weight, device="cpu"))
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty_like(buffer, device="cpu"))


def _state_bytes(module: LitLlama, dtype: torch.dtype) -> int:
    """Bytes of the optimizer's states of a few weights."""
    sample = nn.Parameter(torch.zeros(4096, dtype=dtype))
    sample.grad = torch.zeros_like(sample)
    optimizer = module.make_optimizer([sample])
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    return sum(storage.nbytes() for tensor in _tensors(optimizer) for storage in storages(tensor))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _tensors(optimizer: Optimizer) -> list[Tensor]:
    states: list[dict[str, Any]] = list(optimizer.state.values())
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]
