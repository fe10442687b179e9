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
    """Logits, and the model's phases, at the probes, in float32, in the order of their context lengths."""
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
        found[f"logits_{length}"] = logits.numpy()
        for kind in asked["kinds"].tolist():
            # By kind of layer where the model has several embeddings, and in whatever layout they are.
            of_kind = {"layer_type": kind} if getattr(rotary, "layer_types", None) else {}
            phases = rotary(torch.empty(1), position_ids, **of_kind)
            parts = phases if isinstance(phases, tuple) else (phases,)
            found |= {f"phases_{length}_{kind}_{number}": part.numpy() for number, part in enumerate(parts)}
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
