"""Adapters learn beside a model that stays, and become one with it."""

from pathlib import Path

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel, LoRA, Pretrained
from lit_pi.models.training.lora import check_complete
from lit_pi.positions import Interpolate, PositionStrategy

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = torch.randint(0, 264, (2, 200), generator=torch.Generator().manual_seed(0))
LAYERS, HIDDEN, RANK, VOCABULARY = 2, 32, 4, 264
TRAINED = LAYERS * 4 * 2 * RANK * HIDDEN + VOCABULARY * HIDDEN + (2 * LAYERS + 1) * HIDDEN


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    run = tmp_path_factory.mktemp("base")
    LitPiCLI(["fit", *tiny, f"--trainer.default_root_dir={run}", "--trainer.max_steps=1"])
    return run


def adapted(tiny: list[str], base: Path, run: Path, steps: int, *more: str) -> LitPiCLI:
    kept = [word for word in tiny if not word.startswith(("--model.llm", "--model.position"))]
    words = [
        *kept, "--model.llm=Pretrained", f"--model.llm.path={base}", "--model.adapter=configs/adapter/lora.yaml",
        f"--model.adapter.rank={RANK}", "--model.position=Interpolate", "--model.position.scale=4",
        "--model.optimizer=AdamW", "--model.optimizer.lr=0.01", "--trainer.limit_val_batches=0",
        f"--trainer.max_steps={steps}", f"--trainer.default_root_dir={run}", *more,
    ]  # fmt: skip
    return LitPiCLI(["fit", *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], base: Path) -> tuple[LanguageModel, Path]:
    place = tmp_path_factory.mktemp("adapted")
    return adapted(tiny, base, place, 4).model.model.eval(), place


def state(run: Path) -> dict[str, torch.Tensor]:
    (path,) = (run / "checkpoints").glob("*.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def test_the_base_stays_and_the_adapter_with_embeddings_and_norms_learns(
    run: tuple[LanguageModel, Path], base: Path
) -> None:
    before = dict(Pretrained(str(base)).build()[0].named_parameters())
    after = {name.replace(".base_layer", ""): weight for name, weight in run[0].llm.named_parameters()}
    for name, weight in before.items():
        assert torch.equal(after[name], weight) is not ("embed" in name or "norm" in name), name
    for name in after.keys() - before.keys():
        assert after[name].count_nonzero() > 0, name


def test_checkpoints_hold_what_was_trained_and_nothing_else(run: tuple[LanguageModel, Path]) -> None:
    saved = state(run[1])
    assert sum(weight.numel() for weight in saved.values()) == TRAINED
    live = dict(run[0].named_parameters())
    for name, weight in saved.items():
        assert torch.equal(weight, live[name.removeprefix("model.")])


def logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.llm(input_ids=TOKENS, use_cache=False).logits


def test_the_merged_model_is_the_adapted_one(run: tuple[LanguageModel, Path], base: Path) -> None:
    llm, rope = Pretrained(str(run[1])).build()
    assert llm.config.rope_parameters["rope_type"] == "linear"
    assert llm.config.rope_parameters["factor"] == 4
    assert llm.config.max_position_embeddings == 4 * rope.original_context
    assert not any("lora" in name or "base_layer" in name for name, _ in llm.named_parameters())
    assert not hasattr(llm, "peft_config")
    assert all(parameter.requires_grad for parameter in llm.parameters())
    position: PositionStrategy = Interpolate(scale=4)
    merged = LanguageModel(llm, position, rope).eval()
    assert (logits(merged) - logits(run[0])).abs().max() < 1e-5
    without = LanguageModel(Pretrained(str(base)).build()[0], position, rope).eval()
    assert (logits(without) - logits(run[0])).abs().max() > 0.1


def test_a_run_goes_on_with_its_adapter_only(
    run: tuple[LanguageModel, Path], base: Path, tiny: list[str], tmp_path: Path
) -> None:
    adapted(tiny, base, tmp_path, 2)
    resumed = adapted(tiny, base, tmp_path, 4, "--ckpt_path=last").model.model
    for name, weight in resumed.named_parameters():
        assert torch.equal(weight, dict(run[0].named_parameters())[name]), name
    with pytest.raises(Exception, match=r"was trained with the adapter .*'alpha': 16.* asks for .*'alpha': 8"):
        adapted(tiny, base, tmp_path, 5, "--ckpt_path=last", "--model.adapter.alpha=8")
    with pytest.raises(Exception, match="holds an adapter without the model beside it"):
        adapted(tiny, base, tmp_path, 5, "--ckpt_path=last", "--model.adapter=null")


def test_an_adapter_needs_a_model_that_is_stored(tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(Exception, match="those of `FromScratch` are random"):
        LitPiCLI(["fit", *tiny, "--model.adapter=LoRA", f"--trainer.default_root_dir={tmp_path}"])
    with pytest.raises(UserError, match="rank of LoRA is 0: it must be 1 or more"):
        LoRA(rank=0)


def test_layers_that_are_not_there_and_another_base_are_refused(run: tuple[LanguageModel, Path], base: Path) -> None:
    llm, rope = Pretrained(str(base)).build()
    with pytest.raises(UserError, match="names qkv, and LlamaForCausalLM has no such layer"):
        LoRA(target_modules=["qkv"]).install(LanguageModel(llm, Interpolate(scale=4), rope))
    other = {name.removeprefix("model.llm."): weight[..., :8] for name, weight in state(run[1]).items()}
    with pytest.raises(UserError, match="its base model was replaced"):
        LoRA(rank=RANK).merge(llm, other)


@pytest.mark.parametrize("damage", ["absent", "zero", "half"])
def test_incomplete_adapters_are_not_saved(run: tuple[LanguageModel, Path], damage: str) -> None:
    saved = {name: weight.clone() for name, weight in run[0].state_dict().items()}
    check_complete(run[0], saved)
    name = next(name for name in saved if "lora_B" in name)
    if damage == "absent":
        del saved[name]
    elif damage == "zero":
        saved[name].zero_()
    else:
        saved[name] = saved[name][: len(saved[name]) // 2]
    with pytest.raises(RuntimeError, match=f"{name} would be saved incomplete"):
        check_complete(run[0], saved)
