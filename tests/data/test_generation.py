"""Prompts and continuations as text: no character broken, no space lost."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import Decoding
from lit_pi.data.generation import GenerationBatches, PromptEncoder, PromptSample, continuation
from lit_pi.data.tokenizer import first_tokens, load_tokenizer, plain_backend

TEXT = "The naïve façade – 今日は – cost 10 € in all. "


def metaspace() -> PreTrainedTokenizerFast:
    """Drops the space at a text's start when it decodes, as Llama 2's does."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>"], show_progress=False)
    backend.train_from_iterator([TEXT] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("make", [lambda: load_tokenizer("bytes"), metaspace], ids=["bytes", "metaspace"])
def test_a_cut_text_is_its_first_tokens_with_whole_characters(make: type) -> None:
    tokenizer = make()
    encoder, backend = PromptEncoder(tokenizer), plain_backend(tokenizer)
    (whole,) = encoder.prompts([TEXT], "")
    for tokens in range(1, len(whole) + 2):
        (cut,) = first_tokens(backend, [TEXT], tokens)
        assert TEXT.startswith(cut)
        (encoded,) = encoder.prompts([cut], "")
        assert len(encoded) - 1 <= tokens  # beside <bos>
        (longer,) = encoder.prompts([TEXT[: len(cut) + 1]], "")
        assert cut == TEXT or len(longer) - 1 > tokens or make is metaspace  # whose next word may be one token more
    assert first_tokens(backend, [TEXT, "", TEXT[:3]], 1000) == [TEXT, "", TEXT[:3]]


def test_settings_that_calls_of_a_tokenizer_leave_behind_do_not_matter(
    words_tokenizer: PreTrainedTokenizerFast,
) -> None:
    (prompt,) = PromptEncoder(words_tokenizer).prompts(["it was the age of wisdom </s> and foolishness"], "")
    eos = words_tokenizer.convert_tokens_to_ids("</s>")
    assert prompt[0] == words_tokenizer.convert_tokens_to_ids("<s>") and eos not in prompt and len(prompt) > 8
    assert words_tokenizer.decode(prompt[1:]) == "it was the age of wisdom </s> and foolishness"


@pytest.mark.parametrize("make", [lambda: load_tokenizer("bytes"), metaspace], ids=["bytes", "metaspace"])
def test_a_continuation_has_its_first_space(make: type) -> None:
    tokenizer = make()
    (ids,) = PromptEncoder(tokenizer).prompts([TEXT.strip()], "")
    for place in range(1, len(ids) + 1):
        said = continuation(tokenizer, ids[:place].tolist(), ids[place:].tolist())
        before = continuation(tokenizer, ids[:1].tolist(), ids[1:place].tolist())
        if "\ufffd" not in before + said:
            assert before + said == TEXT.strip()


def test_every_sample_stands_in_one_row_and_rounds_are_equally_large() -> None:
    lengths = [5, 9, 1, 7, 3, 3, 8]
    samples = [PromptSample(np.full(n, n), n + 4, document=index) for index, n in enumerate(lengths)]
    batches = GenerationBatches("texts", samples, Decoding(4, 1.0), batch_size=2, world_size=2)
    rounds = [[batches[index] for index in range(start, start + 2)] for start in range(0, len(batches), 2)]
    seen = []
    for first, second in rounds:
        assert len(first.lengths) == len(second.lengths)
        for batch in (first, second):
            for row, number in enumerate(batch.documents.tolist()):
                if number >= 0:
                    seen.append(number)
                    n = lengths[number]
                    assert (int(batch.lengths[row]), int(batch.context_lengths[row])) == (n, n + 4)
                    assert batch.input_ids[row].tolist() == [n] * n + [0] * (batch.input_ids.shape[1] - n)
                    drawn = np.random.default_rng([0, number]).random(4, np.float32)
                    torch.testing.assert_close(batch.draws[row].numpy(), drawn)
    assert sorted(seen) == list(range(7))
    assert lengths[seen[0]] == 9
