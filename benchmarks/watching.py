"""What watching a run costs a step: blocks of steps with the hooks of `LifeCycle` and `Sentinel` and without, in turns.

python benchmarks/watching.py --size 7b --context-length 8192                                            # one H200
python benchmarks/watching.py --size 2m --context-length 256 --batch-size 16 --block 5 --device cpu      # a laptop
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

from lit_pi.callbacks.life_cycle import LifeCycle
from lit_pi.callbacks.sentinel import Sentinel
from lit_pi.cli import LitPiCLI
from lit_pi.module import LitLlama

HOOKS = [(kind, name) for kind in (LifeCycle, Sentinel) for name in ("on_before_optimizer_step", "on_train_batch_end")]
"""What they do at each step."""

WARM_UP = 2
"""Blocks that are not counted: layers compile in them."""


class Turns:
    """Steps of one run, every second block of which is watched.

    Attributes:
        seconds: duration of each block, the watched ones first of each two.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self.seconds: list[float] = []
        self.watched = True
        self._begun = 0.0

    def take(self) -> None:
        """Let the hooks be called in watched blocks alone, and time all blocks."""
        for kind, name in HOOKS:
            setattr(kind, name, self._in_turn(getattr(kind, name)))
        LitLlama.on_train_batch_end = lambda module, *rest: self._end(module)  # type: ignore[method-assign]

    def _in_turn(self, hook: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: hook(*arguments) if self.watched else None

    def _end(self, module: LitLlama) -> None:
        if module.trainer.global_step % self.block:
            return
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._begun)
        self._begun, self.watched = now, not self.watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="7b")
    parser.add_argument("--context-length", type=int, default=8192, help="tokens")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--block", type=int, default=4, help="steps")
    parser.add_argument("--pairs", type=int, default=15, help="blocks of each kind")
    parser.add_argument("option", nargs="*", help="more options of lit-pi fit, after --")
    arguments = parser.parse_args()
    turns = Turns(arguments.block)
    turns.take()
    with tempfile.TemporaryDirectory() as folder:
        LitPiCLI([
            "fit", "--model.llm=FromScratch", f"--model.llm.size={arguments.size}",
            "--model.position=Interpolate", "--model.position.scale=4", "--data=configs/data/standard_library.yaml",
            f"--data.context_length={arguments.context_length}", f"--data.batch_size={arguments.batch_size}",
            "--data.packing=concatenated", "--data.evaluations={}", "--trainer.devices=1",
            f"--trainer.max_steps={arguments.block * 2 * (arguments.pairs + WARM_UP)}",
            f"--trainer.accelerator={arguments.device}", "--trainer.limit_val_batches=0",
            "--trainer.enable_progress_bar=false", "--checkpoint.save_top_k=0", "--checkpoint.save_last=false",
            f"--trainer.default_root_dir={folder}", *arguments.option,
        ])  # fmt: skip
    watched, others = (turns.seconds[2 * WARM_UP + which :: 2] for which in (0, 1))
    ratios = [one / other for one, other in zip(watched, others, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    step = statistics.median(others) / arguments.block
    print(
        f"a step takes {1000 * step:,.2f} ms unwatched, and watched {middle - 1:+.2%} (quartiles {low - 1:+.2%} to "
        f"{high - 1:+.2%}) in {len(ratios)} pairs of blocks of {arguments.block} steps"
    )


if __name__ == "__main__":
    main()
