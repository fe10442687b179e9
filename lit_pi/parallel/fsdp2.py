"""Fully sharded data parallelism (FSDP2): parameters, gradients and optimizer states split over the ranks."""

from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed import ReduceOp, all_reduce
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from lit_pi.models import LanguageModel

Dtype = Literal["float32", "bfloat16"]


class FSDP2(ModelParallelStrategy):
    """Lightning's `ModelParallelStrategy`, sharding every decoder layer over all ranks.

    Args:
        compute_dtype: dtype of the gathered weights and of the computation; the sharded weights, and so the
            optimizer's, keep the trainer's precision (fp32 master weights under `precision: 32-true`).
        reduce_dtype: dtype in which gradients are summed over ranks.
        save_distributed_checkpoint: each rank writes its shard into a folder; else rank 0 writes one file.
        process_group_backend: `nccl` or `gloo`; chosen by the device by default.
    """

    def __init__(
        self,
        compute_dtype: Dtype = "bfloat16",
        reduce_dtype: Dtype = "float32",
        save_distributed_checkpoint: bool = True,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )
        self.compute_dtype: torch.dtype = getattr(torch, compute_dtype)
        self.reduce_dtype: torch.dtype = getattr(torch, reduce_dtype)
        self._policy = MixedPrecisionPolicy(
            param_dtype=self.compute_dtype,
            reduce_dtype=self.reduce_dtype,
            cast_forward_inputs=False,
        )

    def setup_environment(self) -> None:
        """Shard over the whole world: Lightning's own default is tensor parallelism inside a node."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Evaluate under `no_grad`: gathered weights cannot be inference tensors (as for Lightning's own FSDP)."""
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False
        trainer.predict_loop.inference_mode = False
        super().setup(trainer)

    def shard(self, model: LanguageModel) -> None:
        """Shard each decoder layer and the rest of the model, in place."""
        options: dict[str, Any] = {"mesh": self.device_mesh["data_parallel"], "mp_policy": self._policy}
        for layer in model.decoder_layers:
            fully_shard(layer, **options)
        fully_shard(model, **options)
        register_fsdp_forward_method(model, "read")

    def anyone(self, flag: bool) -> bool:
        """Whether the flag is set on any rank: all have to run as many forwards as the one that runs most."""
        flags = torch.tensor(int(flag), device=self.root_device)
        all_reduce(flags, ReduceOp.MAX)
        return bool(flags)
