"""Whether the ranks that a run asks for have machines to run on."""

import os

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.environments import LightningEnvironment

from lit_pi.errors import UserError

RANKS_A_CORE = 4
"""Ranks that a core may be shared by; with many more, memory ends before the first step."""


def check_machines(trainer: Trainer) -> None:
    """Check what Lightning would only find out by starting ranks and waiting for them.

    Raises:
        UserError: this machine has too few cores, or nothing tells where the other nodes are.
    """
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores * RANKS_A_CORE:
        raise UserError(
            f"trainer.devices is {trainer.num_devices:,}, and this machine has {cores:,} cores: take at most "
            f"{cores * RANKS_A_CORE:,}, or GPUs"
        )
    environment = trainer._accelerator_connector.cluster_environment
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"trainer.num_nodes is {trainer.num_nodes:,}, and nothing tells where the other nodes are: start the run "
            "through Slurm or torchrun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each of them"
        )
