"""The presets train as Chen et al. 2023 (arXiv 2306.15595) did: sections 3.1 and 3.4."""

import pytest
import yaml

from lit_pi.cli import LitPiCLI

GPUS = 8
"""On which the presets say how sequences of a step are made up."""

RUNS = {
    "pile_interpolate": (1000, 64, 8192, "Interpolate", 4, "PileCorpus", 200),
    "redpajama_interpolate": (1000, 64, 8192, "Interpolate", 4, "RedPajamaCorpus", 200),
    "pile_finetune": (10_000, 64, 8192, "Extrapolate", None, "PileCorpus", 1000),
    "redpajama_finetune": (10_000, 64, 8192, "Extrapolate", None, "RedPajamaCorpus", 1000),
    "pile_interpolate interpolate_16k": (1000, 128, 16_384, "Interpolate", 8, "PileCorpus", 200),
    "pile_interpolate interpolate_32k": (1000, 128, 32_768, "Interpolate", 16, "PileCorpus", 200),
}
"""Steps, sequences a step, tokens of a sequence, strategy and scale, corpus, steps from an evaluation to the next."""

SIZES = {"7b": (2e-5, "7b"), "13b": (2e-5, "13b"), "33b": (1e-5, "30b"), "65b": (1e-5, "65b")}
"""Learning rate, and name on the hub."""


def resolved(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    with pytest.raises(SystemExit):
        LitPiCLI(["fit", *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("names", RUNS)
def test_experiments(names: str, capsys: pytest.CaptureFixture[str]) -> None:
    steps, sequences, context, strategy, scale, corpus, every = RUNS[names]
    config = resolved(capsys, *(f"--config=configs/experiment/{name}.yaml" for name in names.split()))
    trainer, model, data = config["trainer"], config["model"], config["data"]
    assert trainer["max_steps"] == steps
    assert trainer["accumulate_grad_batches"] * data["batch_size"] * GPUS == sequences
    assert trainer["val_check_interval"] == every * trainer["accumulate_grad_batches"]
    assert data["context_length"] == context
    assert data["train"]["class_path"].rpartition(".")[2] == corpus
    assert model["position"]["class_path"] == f"lit_pi.{strategy}"
    assert model["position"].get("init_args", {}).get("scale") == scale
    assert max(data["evaluations"]["pg19"]["init_args"]["context_lengths"]) == context
    assert data["evaluations"]["passkey"]["init_args"]["context_lengths"] == [context]
    assert model["llm"]["init_args"]["path"] == "huggyllama/llama-7b"
    assert_optimizer(model, 2e-5)


def test_sizes_leave_the_experiment_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    experiment = "--config=configs/experiment/pile_finetune.yaml"
    plain = resolved(capsys, experiment)
    plain["model"] |= {"llm": None, "optimizer": None}
    for size, (lr, name) in SIZES.items():
        config = resolved(capsys, experiment, f"--model=configs/model/llama_{size}.yaml")
        assert config["model"]["llm"]["init_args"]["path"] == f"huggyllama/llama-{name}"
        assert_optimizer(config["model"], lr)
        config["model"] |= {"llm": None, "optimizer": None}
        assert config == plain


def assert_optimizer(model: dict, lr: float) -> None:
    optimizer, scheduler = model["optimizer"], model["scheduler"]
    assert optimizer["class_path"] == "torch.optim.AdamW"
    assert optimizer["init_args"]["lr"] == lr
    assert optimizer["init_args"]["betas"] == [0.9, 0.95]
    assert optimizer["init_args"]["weight_decay"] == 0
    assert scheduler["class_path"] == "torch.optim.lr_scheduler.LinearLR"
    assert (scheduler["init_args"]["start_factor"], scheduler["init_args"]["total_iters"]) == (0.1, 20)
    assert scheduler["init_args"]["end_factor"] == 1
