"""Two GPUs that split every sequence between them learn and score what one does: in torch's ring, and gathered."""

import json
from pathlib import Path

import pytest
import torch
from launched import Found, command_lines, found_in, launch

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

DTYPES = {"float32": 1e-4, "bfloat16": 2e-2}
"""Nats by which a mean loss may differ: kernels sum in another order."""

RUNS = {
    "ring": ["--model.position=YaRN", "--model.position.scale=4", "--data.packing=single"],
    "ring-again": [
        "--model.position=DynamicNTK", "--model.position.scale=4", "--data.packing=concatenated",
        "--model.activation_checkpointing.mode=full",
    ],
    "ring-saved": [
        "--model.position=Interpolate", "--model.position.scale=4", "--data.packing=concatenated",
        "--model.activation_checkpointing.mode=attention_saved",
    ],
    "documents": ["--model.position=Interpolate", "--model.position.scale=4", "--data.packing=packed"],
    "rule": [
        "--model.position=SelfExtend", "--model.position.group_size=4", "--model.position.window=200",
        "--data.packing=packed", "--model.activation_checkpointing.mode=full",
    ],
}  # fmt: skip

CONFIG = (
    "{vocab_size: 264, hidden_size: 256, intermediate_size: 512, num_hidden_layers: 2, num_attention_heads: 4,"
    " num_key_value_heads: 2, max_position_embeddings: 512}"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """Every run in every dtype, on one GPU and on two."""
    folder = tmp_path_factory.mktemp("runs")
    evaluation = {"class_path": "Perplexity", "init_args": {
        "corpus": {"class_path": "TextFiles", "init_args": {"test": str(texts / "test")}},
        "context_lengths": [301, 1021], "stride": 250, "batch_size": 3,
    }}  # fmt: skip
    for gpus in (1, 2):
        words = []
        for dtype in DTYPES:
            for name, own in RUNS.items():
                run = folder / f"{name}-{dtype}-{gpus}"
                words.append([
                    "fit", "--trainer.accelerator=gpu", "--trainer.enable_progress_bar=false",
                    "--model.compile_layers=false",
                    "--model.llm=FromScratch", f"--model.llm.config={CONFIG}", *own,
                    "--model.optimizer=SGD", "--model.optimizer.lr=0.5", "--data.train=TextFiles",
                    f"--data.train.train={texts / 'train'}", "--data.context_length=1000", "--data.batch_size=2",
                    f"--data.evaluations={json.dumps({'texts': evaluation})}", "--trainer.max_steps=4",
                    "--trainer.val_check_interval=4", "--trainer.log_every_n_steps=1", "--trainer.logger=CSVLogger",
                    f"--trainer.logger.save_dir={run}", f"--trainer.default_root_dir={run}",
                    "--trainer.strategy=FSDP2", f"--trainer.strategy.compute_dtype={dtype}",
                    f"--trainer.strategy.context_parallel_size={gpus}", f"--trainer.devices={gpus}",
                ])  # fmt: skip
        launch(command_lines, words, processes=gpus, folder=folder, timeout=540)
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RUNS)
def test_two_gpus_learn_and_score_what_one_does(name: str, dtype: str, runs: Path) -> None:
    one, two = (found_in(runs / f"{name}-{dtype}-{gpus}") for gpus in (1, 2))
    losses = [abs(a - b) for a, b in zip(one.losses, two.losses, strict=True)]
    means = [abs(a - b) for a, b in zip(*(_means(each) for each in (one, two)), strict=True)]
    print(f"{name}, {dtype}: losses of steps {one.losses} differ by {max(losses):.2g} nats, of documents by", end=" ")
    print(f"{max(means):.2g}")
    assert one.tokens == two.tokens
    assert len(one.losses) == 4 and max(one.losses) - min(one.losses) > 0.1
    assert max(losses + means) < DTYPES[dtype]


def _means(found: Found) -> list[float]:
    return [nll / tokens for nll, tokens in zip(found.nll, found.tokens, strict=True)]
