"""A model's own tokenizer by default, and none of another vocabulary."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_pi.data.model_tokenizer import check_belongs, choose_tokenizer, tokenizer_record
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, words_tokenizer: PreTrainedTokenizerFast) -> Path:
    """The model's own."""
    folder = tmp_path_factory.mktemp("own")
    words_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, words_tokenizer: PreTrainedTokenizerFast) -> Path:
    """Of as many tokens, the last of which are others."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(words_tokenizer), special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(["call me ishmael some years ago never mind how long precisely having little"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert len(tokenizer) == len(words_tokenizer)
    folder = tmp_path_factory.mktemp("other")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def known(own: Path) -> Callable[..., dict[str, Any]]:
    """Makes records of a model's own tokenizer."""

    def make(**changed: Any) -> dict[str, Any]:
        return {"model": "m", "name": str(own), "vocabulary": None, "vocab_size": 400} | changed

    return make


def test_the_models_own_is_the_default(own: Path, known: Callable[..., dict]) -> None:
    assert choose_tokenizer(None, None).name_or_path == "bytes"
    assert choose_tokenizer(None, known()).name_or_path == str(own)
    recorded = tokenizer_record(load_tokenizer(str(own)))
    assert choose_tokenizer(None, known(**recorded)).name_or_path == str(own)
    with pytest.raises(UserError, match="has another vocabulary than when m was trained with it"):
        choose_tokenizer(None, known(**recorded | {"vocabulary": "0" * 16}))


def test_another_vocabulary_is_refused_however_large(own: Path, other: Path, known: Callable[..., dict]) -> None:
    recorded = tokenizer_record(load_tokenizer(str(own)))
    gone = recorded | {"name": "/nowhere"}
    for record in (known(), known(**recorded)):
        for asked in (str(other), "bytes"):
            with pytest.raises(UserError, match=r"does not belong to m: its token \d+ is .* and the model's own"):
                choose_tokenizer(asked, record)
    with pytest.raises(UserError, match="does not belong to m, which was trained with /nowhere, another vocabulary"):
        choose_tokenizer(str(other), known(**gone))
    assert choose_tokenizer(str(own), known(**gone)).name_or_path == str(own)


def test_the_same_vocabulary_may_have_more_and_other_special_tokens(
    own: Path, known: Callable[..., dict], tmp_path: Path
) -> None:
    more = load_tokenizer(str(own))
    more.add_special_tokens({"pad_token": "<pad>", "bos_token": AddedToken("<begin>", special=True)})
    more.add_tokens(["ishmael"])
    more.save_pretrained(tmp_path)
    for asked in (str(tmp_path), str(tmp_path / "tokenizer.json")):
        assert len(choose_tokenizer(asked, known())) == len(more)


def test_where_nobody_knows_a_sentence_says_so(
    other: Path, known: Callable[..., dict], caplog: pytest.LogCaptureFixture
) -> None:
    nothing = {"name": None}
    with caplog.at_level(logging.INFO):
        assert choose_tokenizer(None, known(**nothing, vocab_size=320)).name_or_path == "bytes"
        assert "There is no tokenizer in m: it is taken for a model that was trained on `bytes`" in caplog.text
        caplog.clear()
        for record in (known(**nothing), known(name="nobody/no-such-model"), known(**nothing, vocab_size=None)):
            for asked in (str(other), "bytes"):
                choose_tokenizer(asked, record)
                assert f"Nothing says whether m was trained with the tokenizer {asked}" in caplog.text
                caplog.clear()
    with pytest.raises(UserError, match=r"`bytes` is for models that were trained on bytes, and m has .* of 32,000"):
        choose_tokenizer("bytes", known(**nothing, vocab_size=32_000))
    for size in (32_000, None):
        with pytest.raises(UserError, match="there is no tokenizer in m: name the one that it was trained with"):
            choose_tokenizer(None, known(**nothing, vocab_size=size))


def test_bytes_belong_to_models_of_bytes(own: Path, known: Callable[..., dict]) -> None:
    recorded = known(**tokenizer_record(load_tokenizer("bytes")))
    assert recorded["name"] == "bytes"
    check_belongs(load_tokenizer("bytes"), recorded)
    with pytest.raises(UserError, match="does not belong to m"):
        check_belongs(load_tokenizer(str(own)), recorded)


def test_what_a_tokenizer_lacks_is_said_once(own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(str(own)).backend_tokenizer)
    tokenizer.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        for name, times in ((str(own), 0), (str(tmp_path), 1)):
            caplog.clear()
            data = LongContextData(tokenizer=name)
            assert data.tokenizer is data.tokenizer
            assert [caplog.text.count(missing) for missing in ("has no <bos>", "has no <eos>")] == [times, times]
