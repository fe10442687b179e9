"""Extended models on a GPU, where there is one."""

from collections.abc import Callable

import pytest
import torch
from strategies import STRATEGIES
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import lit_pi
from lit_pi.models import LanguageModel
from lit_pi.positions import Interpolate, Rope

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),
]

TOKENS = torch.randint(1, 250, (2, 300), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("name", STRATEGIES)
def test_it_computes_and_generates_what_the_cpu_does(name: str, build: Callable[[], LlamaForCausalLM]) -> None:
    model, there = (lit_pi.extend(build().double(), STRATEGIES[name]) for _ in range(2))
    there.cuda()
    torch.testing.assert_close(there(TOKENS.cuda()).logits.cpu(), model(TOKENS).logits, rtol=0, atol=1e-3)
    prompt = TOKENS[:, :60].cuda()
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 0.5)):
        done = there.to(dtype).generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, min_new_tokens=12, do_sample=False,
            output_logits=True, return_dict_in_generate=True, pad_token_id=0,
        )  # fmt: skip
        whole = LanguageModel(build().to("cuda", dtype), STRATEGIES[name], Rope(64, 1e4, 64)).eval()
        whole.rotary.context_length = 72
        expected = whole.llm(done.sequences[:, :-1], use_cache=False).logits[:, 59:]
        difference = (torch.stack(done.logits, dim=1) - expected).abs().float().mean()
        assert difference < tolerance


def test_measuring_leaves_it_there(
    build: Callable[[], LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, documents: list[str]
) -> None:
    model, there = (lit_pi.extend(build(), Interpolate(scale=4)) for _ in range(2))
    there.cuda()
    expected = lit_pi.perplexity_curve(model, tokenizer, documents, [32, 128], stride=16)
    found = lit_pi.perplexity_curve(there, tokenizer, documents, [32, 128], stride=16)
    assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-3)
    assert found.protocol["compiled"]
    assert {parameter.device.type for parameter in there.parameters()} == {"cuda"}
