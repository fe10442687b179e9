"""Computes with stock transformers from a directory; a script for a process of its own, which never sees lit_pi.

Arguments: the directory, a file of probes in it, and the file to write.
"""

import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM


@torch.inference_mode()
def main(directory: str, probes: str, output: str) -> None:
    """Logits, cosine and sine at the probes, in float32, in the order of their context lengths."""
    asked = np.load(probes)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    (rotary,) = [module for name, module in model.named_modules() if name.endswith("rotary_emb")]
    found: dict[str, Any] = {}
    for length in asked["context_lengths"]:
        input_ids, position_ids = (torch.from_numpy(asked[f"{name}_{length}"]) for name in ("tokens", "positions"))
        # Without a mask, transformers would read documents out of jumps in the positions.
        logits = model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=torch.ones_like(input_ids),
            use_cache=False,
            logits_to_keep=asked[f"logits_{length}"].shape[1],
        ).logits
        cos, sin = rotary(torch.empty(1), position_ids)
        half = cos.shape[-1] // 2
        found |= {
            f"logits_{length}": logits.numpy(),
            f"cos_{length}": cos[0, :, :half].numpy(),
            f"sin_{length}": sin[0, :, :half].numpy(),
        }
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
