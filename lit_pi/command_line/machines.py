"""Whether the ranks and processes that a run asks for have machines to run on."""

import os
import resource

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.environments import LightningEnvironment

from lit_pi.errors import UserError

RANKS_A_CORE = 4
"""Ranks that a core may be shared by; with many more, memory ends before the first step."""
OPEN, OPEN_A_WORKER = 32, 8
"""Files that a run has open, and more of them for each process that hands it batches, at the very least."""


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


def check_open_files(workers: int) -> None:
    """Check that processes which read data may hand over what they read, as open files; without, they wait for ever.

    Args:
        workers: how many processes there are.

    Raises:
        UserError: too few files may be open.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if workers and most != resource.RLIM_INFINITY and most < (needed := OPEN + OPEN_A_WORKER * workers):
        raise UserError(
            f"data.num_workers is {workers:,}, and only {most:,} files may be open at once: allow {needed:,} with "
            f"`ulimit -n {needed}`, or take fewer"
        )
