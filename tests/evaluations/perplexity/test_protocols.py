"""Protocols of the literature, each against its formula as a loop over stock transformers in float64."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_pi.callbacks import Measurements
from lit_pi.data.corpora import TextFiles
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.evaluations import Perplexity
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import DynamicNTK, Interpolate, PositionStrategy

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:Total length of `DataLoader`")

BOS, EOS = 0, 1
TINY: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 128, "initializer_range": 0.3,
}  # fmt: skip
CONTEXT_LENGTHS = [300, 257, 411]
STRIDE = 100
"""Of the recipes of Hugging Face, whose users choose it."""
LENGTHS = [700, 40, 256, 411, 929]
"""Words of each document, of a token or more; some documents are shorter than a window."""

Encode = Callable[[str], list[int]]
Nll = Callable[..., list[float]]
"""For each token of a window but the first, its loss given those before it; the model may leave the last unread."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("documents"), Random(0)
    for number, length in enumerate(LENGTHS):
        words = [generator.choice(["to", " be", " or", "\n", "\n\n\n", " été", "x"]) for _ in range(length)]
        (folder / f"{number}.txt").write_text("".join(["o", *words, "\n" if number % 2 else "t"]))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose tokens are more than bytes, and span the seam between texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    backend.train_from_iterator((path.read_text() for path in folder.iterdir()), trainer)
    saved = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(saved)
    return saved


def pi(texts: list[str], encode: Encode, length: int, nll: Nll) -> float:
    """The mean over all windows of all documents, each `<bos>` and `length` - 1 tokens, 256 apart."""
    windows = []
    for tokens in map(encode, texts):
        scored_to = 0
        for begin in range(0, len(tokens), 256):
            end = min(begin + length - 1, len(tokens))
            windows.append(fmean(nll([BOS, *tokens[begin:end]])[scored_to - end :]))
            scored_to = end
            if end == len(tokens):
                break
    return math.exp(fmean(windows))


def yarn_2023(texts: list[str], encode: Encode, length: int, nll: Nll) -> float:
    """The mean of the perplexities of documents cut to `length` - 1 tokens behind `<bos>`."""
    return fmean(math.exp(fmean(nll([BOS, *tokens[: length - 1]]))) for tokens in map(encode, texts))


def longlora(texts: list[str], encode: Encode, length: int, nll: Nll) -> float:
    """The mean over full windows of one stream, 256 apart, without the last of them."""
    stream = [token for text in texts for token in encode(text)]
    begins = [begin for begin in range(len(stream)) if begin % 256 == 0 and begin + length < len(stream)]
    return math.exp(fmean(fmean(nll(stream[begin : begin + length])) for begin in begins[:-1]))


def lm_eval(texts: list[str], encode: Encode, length: int, nll: Nll) -> float:
    """Nats over bytes; `length` tokens are predicted from as many, the last ones from a window moved back."""
    total = 0.0
    for tokens in map(encode, texts):
        total += math.fsum(nll([BOS, *tokens[:length]], unread=1))
        done = min(length, len(tokens))
        while done < len(tokens):
            new = min(length, len(tokens) - done)
            end = done + new
            total += math.fsum(nll(tokens[end - length - 1 : end], unread=1)[-new:])
            done = end
    return math.exp(total / sum(len(text.encode()) for text in texts))


def hf_windows(texts: list[str], encode: Encode, length: int, nll: Nll) -> list[tuple[float, int]]:
    """For each window over the joined text its loss, as transformers returns it, and its number of labels."""
    tokens = encode("\n\n".join(texts))
    windows, previous = [], 0
    for begin in range(0, len(tokens), STRIDE):
        end = min(begin + length, len(tokens))
        labels = end - previous
        windows.append((fmean(nll(tokens[begin:end])[-labels:]), labels))
        previous = end
        if end == len(tokens):
            break
    return windows


def hf_2023(texts: list[str], encode: Encode, length: int, nll: Nll) -> float:
    return math.exp(fmean(loss for loss, _ in hf_windows(texts, encode, length, nll)))


def hf_now(texts: list[str], encode: Encode, length: int, nll: Nll) -> float:
    windows = hf_windows(texts, encode, length, nll)
    return math.exp(sum(loss * (labels - 1) for loss, labels in windows) / sum(labels - 1 for _, labels in windows))


def llama_cpp(texts: list[str], encode: Encode, length: int, nll: Nll) -> float:
    """The second half of each chunk of the text behind `<bos>`, which takes the place of its first token."""
    stream = [BOS, *encode("".join(texts))]
    total, count = 0.0, 0
    for chunk in range(len(stream) // length):
        tokens = [BOS, *stream[chunk * length + 1 : (chunk + 1) * length]]
        first = length // 2
        total += math.fsum(nll(tokens)[first : length - 1])
        count += length - first - 1
    return math.exp(total / count)


FORMULAS = {
    "pi": pi, "yarn": pi, "yarn_2023": yarn_2023, "longlora": longlora, "lm_eval": lm_eval, "hf_2023": hf_2023,
    "hf_now": hf_now, "llama_cpp": llama_cpp,
}  # fmt: skip


def perplexity(folder: Path, protocol: Any, **kwargs: Any) -> Perplexity:
    stride = {"stride": STRIDE} if str(protocol).startswith("hf") else {}
    options = {"context_lengths": CONTEXT_LENGTHS, "batch_size": 4, **stride, **kwargs}
    return Perplexity(TextFiles(test=str(folder)), protocol=protocol, **options)


def run(
    folder: Path, tokenizer: Path, out: Path, position: PositionStrategy, evaluations: dict[str, Perplexity]
) -> LitLlama:
    module = LitLlama(FromScratch(config=TINY), position)
    data = LongContextData(TextFiles(train=str(folder)), dict(evaluations), 16, tokenizer=str(tokenizer))
    trainer = Trainer(
        accelerator="cpu", devices=1, enable_model_summary=False, enable_progress_bar=False, default_root_dir=out,
        callbacks=[Measurements()], enable_checkpointing=False, logger=False, precision="64-true",
    )  # fmt: skip
    trainer.test(module, data, verbose=False)
    return module


@pytest.mark.parametrize(
    ("position", "parameters", "protocols"),
    [
        (Interpolate(scale=2), {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, [*FORMULAS]),
        # Its frequencies say how many tokens a window has the model read.
        (DynamicNTK(scale=2), {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, ["yarn_2023", "lm_eval"]),
    ],
    ids=["interpolate", "dynamic"],
)
def test_every_protocol_equals_its_formula(
    position: PositionStrategy,
    parameters: dict[str, Any],
    protocols: list[str],
    tmp_path: Path,
    folder: Path,
    tokenizer: Path,
) -> None:
    module = run(folder, tokenizer, tmp_path, position, {name: perplexity(folder, name) for name in protocols})
    stock = LlamaForCausalLM._from_config(LlamaConfig(**TINY, rope_parameters=parameters), dtype=torch.float64)
    assert module.model is not None
    stock.load_state_dict(module.model.llm.state_dict())
    stock.eval()
    rotary = stock.model.rotary_emb

    def nll(tokens: list[int], unread: int = 0) -> list[float]:
        stock.model.rotary_emb = deepcopy(rotary)  # stock transformers remembers the longest window
        read = torch.tensor([tokens[: len(tokens) - unread]])
        with torch.no_grad():
            log_probs = stock(read, use_cache=False).logits[0].log_softmax(-1)
        return (-log_probs[torch.arange(len(tokens) - 1), tokens[1:]]).tolist()

    texts = [path.read_text() for path in sorted(folder.iterdir())]
    encode = PreTrainedTokenizerFast.from_pretrained(tokenizer).encode
    for separator in ("", "\n\n"):
        apart = [token for text in texts for token in encode(separator) + encode(text)]
        assert encode(separator.join(texts)) != apart[len(encode(separator)) :]
    found = json.loads((tmp_path / "results.json").read_text())["records"]
    assert [record["evaluation"] for record in found] == protocols
    for record in found:
        name = record["evaluation"]
        assert record["protocol"]["reproduces"]["name"] == name
        assert record["protocol"]["documents"] == len(LENGTHS)
        assert [point["context_length"] for point in record["curve"]] == sorted(CONTEXT_LENGTHS)
        for point in record["curve"]:
            expected = FORMULAS[name](texts, encode, point["context_length"], nll)
            assert point["perplexity"] == pytest.approx(expected, rel=1e-7), (name, point["context_length"])


def test_results_name_the_protocol(tmp_path: Path, folder: Path, tokenizer: Path) -> None:
    run(folder, tokenizer, tmp_path, Interpolate(scale=2), {"a": perplexity(folder, "lm_eval")})
    shown = (tmp_path / "tables.md").read_text()
    assert "perplexity by context length, protocol lm_eval" in shown
    assert "| context length | byte perplexity |" in shown
    assert "protocol lm_eval (byte perplexity" in shown
    assert "every token counts alike" not in shown


@pytest.mark.parametrize(
    ("protocol", "options", "says"),
    [
        ("pi", {"stride": 128}, "stride is 128, where protocol pi fixes 256"),
        ("yarn", {"bos": "none"}, "bos is none, where protocol yarn fixes every"),
        ("lm_eval", {"stride": 128}, "stride is 128, where protocol lm_eval has none"),
        ("llama_cpp", {"num_windows": 20}, "num_windows is 20, where protocol llama_cpp has none"),
        ("longlora", {"disjoint": True}, "disjoint is True, where protocol longlora has none"),
        ("press", {}, "there is no protocol press: name one of pi, yarn"),
    ],
)
def test_options_that_contradict_a_protocol_are_refused(
    protocol: str, options: dict[str, Any], says: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=says):
        perplexity(folder, protocol, **options)


def test_options_that_repeat_a_protocol_are_not_refused(folder: Path) -> None:
    assert perplexity(folder, "yarn", stride=256, bos="every").stride == 256


def test_text_too_short_for_any_window_of_a_protocol_is_refused(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    evaluation = perplexity(folder, "longlora", context_lengths=[300, size - 100])
    with pytest.raises(UserError, match="protocol longlora has no window of"):
        evaluation.prepare(load_tokenizer("bytes"))


def test_a_tokenizer_without_bos_leaves_it_out_or_puts_eos(folder: Path, tokenizer: Path) -> None:
    bare = load_tokenizer(str(tokenizer))
    bare.bos_token = None
    yarn, rolling = perplexity(folder, "yarn"), perplexity(folder, "lm_eval")
    yarn.prepare(bare)
    rolling.prepare(bare)
    assert yarn.plan.bos == "none"
    assert rolling.batches("x", bare, 1)[0].input_ids[0, 0] == EOS
