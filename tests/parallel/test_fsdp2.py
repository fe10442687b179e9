"""What FSDP2 cannot shard is refused before the first step."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import AdamW, Optimizer

from lit_pi.errors import UserError
from lit_pi.parallel import FSDP2

pytestmark = pytest.mark.filterwarnings("ignore")


class Module(LightningModule):
    def __init__(self, optimizer: type[Optimizer]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.optimizer = optimizer

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters())


def set_up(optimizer: type[Optimizer], **options: bool) -> None:
    trainer = Trainer(accelerator="cpu", devices=1, strategy=FSDP2(**options), logger=False)
    module = Module(optimizer)
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer.strategy.setup_optimizers(trainer)
    assert isinstance(trainer.optimizers[0], optimizer)


def test_states_of_8_bits_are_refused_unless_they_leave_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    low_bit = type("AdamW8bit", (AdamW,), {"__module__": "torchao.optim.adam"})
    for options in ({}, {"cpu_offload": True}):
        with pytest.raises(UserError, match="torchao's AdamW8bit, whose states FSDP2 cannot shard on their device"):
            set_up(low_bit, **options)
    set_up(AdamW)
    monkeypatch.setattr(FSDP2, "root_device", torch.device("cuda"))
    set_up(low_bit, cpu_offload=True)
