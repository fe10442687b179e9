"""Positions in training: what PoSE promises, and that the model is trained there."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.positions import Contiguous, Interpolate, PoSE, Rope

SEQ, TARGET = 64, 1024
PLACES = torch.arange(SEQ).expand(500, -1)
TOKENS = torch.randint(0, 97, (500, SEQ), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("chunks", [2, 3, 5])
def test_pose_keeps_order_and_reaches_the_target(chunks: int) -> None:
    positions = PoSE(TARGET, chunks)(PLACES, TOKENS, step=0)
    steps = positions.diff(dim=1)
    assert (positions[:, 0] == 0).all() and (steps >= 1).all()
    assert positions.max() < TARGET
    assert ((steps > 1).sum(dim=1) <= chunks - 1).all()
    assert (positions[:, -1] > TARGET - 20).any()
    if chunks == 2:
        assert (positions[:, -1] < SEQ + 20).any()
        skips = positions[:, -1] - (SEQ - 1)
        assert skips.double().mean() == pytest.approx((TARGET - SEQ) / 2, rel=0.1)  # uniform
        cuts = (steps > 1).double().argmax(dim=1)[skips > 0]
        assert cuts.double().mean() == pytest.approx((SEQ - 2) / 2, rel=0.1)


def test_pose_draws_again_for_another_step_or_row_and_the_same_for_the_same() -> None:
    pose = PoSE(TARGET)
    first = pose(PLACES, TOKENS, step=3)
    assert torch.equal(PoSE(TARGET)(PLACES[100:200], TOKENS[100:200], step=3), first[100:200])
    assert not torch.equal(pose(PLACES, TOKENS, step=4), first)
    assert not torch.equal(PoSE(TARGET, seed=1)(PLACES, TOKENS, step=3), first)
    assert len(first[:, -1].unique()) > 300


def test_pose_skips_in_each_document_and_not_in_padding() -> None:
    row = torch.cat((torch.arange(30), torch.arange(20), torch.zeros(14, dtype=torch.long))).expand(200, -1)
    positions = PoSE(TARGET)(row, TOKENS[:200], step=0)
    assert (positions[:, 0] == 0).all() and (positions[:, 30] == 0).all() and (positions[:, 50:] == 0).all()
    assert (positions[:, 29] > 30).any() and (positions[:, 49] > 20).any()
    assert (positions[:, :30].diff(dim=1) > 0).all() and (positions[:, 30:50].diff(dim=1) > 0).all()


def test_contiguous_changes_nothing() -> None:
    assert torch.equal(Contiguous()(PLACES, TOKENS, step=9), PLACES)
    assert (Contiguous().context_length(64), PoSE(TARGET).context_length(64)) == (64, TARGET)


def test_chunks_see_each_other_across_the_skip_and_are_unchanged_inside() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=SEQ,
    )  # fmt: skip
    llm = LlamaForCausalLM._from_config(config, attn_implementation=ATTENTION).eval()
    model = LanguageModel(llm, Interpolate(target_context=TARGET), Rope(8, 1e4, SEQ))
    positions = PoSE(TARGET)(PLACES[:1], TOKENS[:1], step=0)
    cut = int((positions.diff(dim=1) > 1).nonzero()[0, 1]) + 1
    targets = TOKENS[:1].roll(-1, 1)
    perturbed = TOKENS[:1].clone()
    perturbed[0, 0] = (perturbed[0, 0] + 1) % 97
    with torch.no_grad():
        skipped = model(TOKENS[:1], targets, position_ids=positions)
        contiguous = model(TOKENS[:1], targets)
        moved = model(perturbed, targets, position_ids=positions)
        shifted = model(TOKENS[:1, cut:], targets[:, cut:], position_ids=positions[:, cut:])
        alone = model(TOKENS[:1, cut:], targets[:, cut:])
    torch.testing.assert_close(skipped[:, :cut], contiguous[:, :cut], rtol=0, atol=1e-5)  # the first chunk
    torch.testing.assert_close(shifted, alone, rtol=0, atol=1e-4)  # the second, by itself: only distances count
    assert (moved[:, cut:] != skipped[:, cut:]).all()  # but it sees the first
    assert (skipped[:, cut:] != contiguous[:, cut:]).any()  # from farther away


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_trains_at_the_same_positions(tmp_path: Path, tiny: list[str]) -> None:
    pose = ["--model.train_positions=PoSE", "--model.train_positions.target_context=512"]
    words = ["fit", *tiny, *pose, "--checkpoint.every_n_train_steps=2", "--trainer.limit_val_batches=0"]
    weights = []
    for run, stops in (("whole", [6]), ("stopped", [4, 6])):
        for stop in stops:
            resume = ["--ckpt_path=last"] if stop != stops[0] else []
            where = f"--trainer.default_root_dir={tmp_path / run}"
            cli = LitPiCLI([*words, *resume, where, f"--trainer.max_steps={stop}"])
        weights.append(cli.model.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match="chunks of PoSE is 1"):
        PoSE(TARGET, chunks=1)
    with pytest.raises(UserError, match="target_context 32, which is shorter than the sequences of 64"):
        PoSE(32).context_length(64)
