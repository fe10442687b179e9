"""Fully sharded data parallelism (FSDP2): parameters, gradients and optimizer states split over the ranks."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed import Backend, all_gather_object
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.sources.checkpoint import read_whole
from lit_pi.models.sources.filling import Fill
from lit_pi.parallel.checkpoint_io import AtomicCheckpointIO
from lit_pi.ranges import Count, in_range

Dtype = Literal["float32", "bfloat16"]


LOW_BIT_OPTIMIZERS = {"Adam8bit", "AdamW8bit", "Adam4bit", "AdamW4bit", "AdamFp8", "AdamWFp8"}
"""torchao's whose states torch cannot compile when they are sharded on their device (pytorch/ao, pull request 4216)."""


class FSDP2(ModelParallelStrategy):
    """Lightning's `ModelParallelStrategy`, sharding every decoder layer over all ranks.

    With context parallelism, every rank's gradient is the sum over its group's parts times the size of the group, which
    the mean over all ranks divides by: it is that of one process.

    Args:
        compute_dtype: dtype of the gathered weights and of the computation; the sharded weights, and so the
            optimizer's, keep the trainer's precision (fp32 master weights under `precision: 32-true`).
        reduce_dtype: dtype in which gradients are summed over ranks.
        cpu_offload: keep shards of weights, gradients and optimizer states in the CPU's memory, where the optimizer
            steps too; a layer's weights come to the GPU when it computes.
        save_distributed_checkpoint: let each rank write its shard into a folder; else rank 0 writes one file.
        process_group_backend: `nccl` or `gloo`; chosen by the device by default.
        context_parallel_size: ranks that share every sequence, each computing a part of it (context parallelism); it
            divides the number of devices.

    Raises:
        UserError: `context_parallel_size` is not positive, or does not divide the number of devices; the optimizer is
            one of torchao's with states of 8 bits or fewer, unless `cpu_offload` moves them from a GPU.
    """

    @in_range
    def __init__(
        self,
        compute_dtype: Dtype = "bfloat16",
        reduce_dtype: Dtype = "float32",
        cpu_offload: bool = False,
        save_distributed_checkpoint: bool = True,
        process_group_backend: str | None = None,
        context_parallel_size: Count = 1,
    ) -> None:
        super().__init__(
            tensor_parallel_size=context_parallel_size,  # Lightning gives the ranks of this axis the same batches
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )
        if process_group_backend is not None and process_group_backend not in Backend.backend_list:
            raise UserError(
                f"process_group_backend of FSDP2 is {process_group_backend}, which torch does not know: leave it out, "
                f"or give one of {', '.join(Backend.backend_list)}"
            )
        self.context_parallel_size = context_parallel_size
        self.compute_dtype: torch.dtype = getattr(torch, compute_dtype)
        self.reduce_dtype: torch.dtype = getattr(torch, reduce_dtype)
        self.cpu_offload = cpu_offload
        self._policy = MixedPrecisionPolicy(
            param_dtype=self.compute_dtype,
            reduce_dtype=self.reduce_dtype,
            cast_forward_inputs=False,
        )

    def setup_environment(self) -> None:
        """Shard over the whole world: Lightning's own default is tensor parallelism inside a node."""
        ranks = self.num_nodes * self.num_processes
        if ranks % self.context_parallel_size:
            raise UserError(
                f"trainer.strategy.context_parallel_size is {self.context_parallel_size}, which does not divide the "
                f"{ranks} devices: each sequence is shared by so many of them"
            )
        self._data_parallel_size = ranks // self.context_parallel_size
        if self.cpu_offload and self.root_device.type == "cuda" and self._process_group_backend is None:
            self._process_group_backend = "cpu:gloo,cuda:nccl"  # the norm of gradients is summed on the CPU
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Evaluate under `no_grad`: gathered weights cannot be inference tensors (as for Lightning's own FSDP)."""
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False
        trainer.predict_loop.inference_mode = False
        super().setup(trainer)

    def shard(self, model: LanguageModel, fill: Fill) -> None:
        """Shard each decoder layer as soon as it is filled, and then the rest of the model, in place."""
        world = init_device_mesh(self.root_device.type, (self.world_size,))
        options: dict[str, Any] = {"mesh": world, "mp_policy": self._policy}
        if self.cpu_offload:
            options["offload_policy"] = CPUOffloadPolicy(pin_memory=self.root_device.type == "cuda")
        layers = set(model.decoder_layers)

        def visit(module: nn.Module) -> None:
            fill(module)
            if module in layers:
                fully_shard(module, **options)

        model.apply(visit)
        fully_shard(model, **options)
        register_fsdp_forward_method(model, "read")
        if self.context_parallel_size > 1:
            model.sequence_mesh = self.device_mesh["tensor_parallel"]

    def model_to_device(self) -> None:
        """Move the model to its device, unless its shards stay on the CPU."""
        if not self.cpu_offload:
            super().model_to_device()
            return
        assert self.lightning_module is not None
        self.lightning_module._device = self.root_device

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the optimizers, and refuse what would fail in its first step."""
        super().setup_optimizers(trainer)
        if self.cpu_offload and self.root_device.type == "cuda":
            return
        for kind in map(type, self.optimizers):
            if kind.__module__.startswith("torchao.") and kind.__name__ in LOW_BIT_OPTIMIZERS:
                raise UserError(
                    f"model.optimizer is torchao's {kind.__name__}, whose states FSDP2 cannot shard on their device: "
                    "take configs/optimizer/adamw_stochastic_rounding.yaml, set trainer.strategy.cpu_offload on a GPU, "
                    "or train on one device with `--trainer.strategy auto`"
                )

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save shards so that they are whole or absent; see `AtomicCheckpointIO`."""
        if not self._save_distributed_checkpoint or not isinstance(self.checkpoint_io, AtomicCheckpointIO):
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        optimizers = checkpoint.pop("optimizer_states", [])
        shards = {"state_dict": checkpoint.pop("state_dict")}
        shards |= {f"optimizer_{number}": state for number, state in enumerate(optimizers)}
        self.checkpoint_io.save_shards(shards, checkpoint, Path(self.broadcast(filepath)))

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint, once each rank has seen that its part is what was written.

        Raises:
            UserError: it is not, on any rank.
        """
        path, found = Path(self.broadcast(checkpoint_path)), [""] * self.world_size
        try:
            read_whole(path, len(self.optimizers), self.global_rank, self.world_size)
            said = ""
        except UserError as error:
            said = str(error)
        all_gather_object(found, said)
        if any(found):  # on all ranks alike: none waits for another
            raise UserError(next(filter(None, found)))
        return super().load_checkpoint(path, weights_only)

    def teardown(self) -> None:
        """Wait for checkpoints that are still to be written, which Lightning's own teardown leaves out."""
        self.checkpoint_io.teardown()
        super().teardown()
