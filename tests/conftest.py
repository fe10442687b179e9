"""Every test runs without network and with a cache and a small corpus of its own."""

import os

# One thread: small tensors gain nothing from more, and processes of one test do not fight for cores.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="true", OMP_NUM_THREADS="1")

import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = "the position of a token turns its query and its key by an angle that grows with the distance"
WORDS = "it was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token stores that tests may share, away from the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LIT_PI_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `train` of 12 and a folder `test` of 5 documents of 400 to 1,500 bytes."""
    folder = tmp_path_factory.mktemp("texts")
    chance = random.Random(0)
    for split, count in (("train", 12), ("test", 5)):
        (folder / split).mkdir()
        for number in range(count):
            words = chance.choices(TEXT.split(), k=chance.randint(90, 300))
            (folder / split / f"{number:02d}.txt").write_text(" ".join(words))
    return folder


@pytest.fixture(scope="session")
def tiny(texts: Path) -> list[str]:
    """Options of `lit-pi fit` and `test` for a model of 20 thousand parameters over the small corpus."""
    return [
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--model.llm=FromScratch",
        "--model.llm.config={vocab_size: 264, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,"
        " num_attention_heads: 4, max_position_embeddings: 64}",
        "--model.position=Extrapolate",
        "--data.train=TextFiles",
        f"--data.train.train={texts / 'train'}",
        "--data.context_length=64",
        "--data.batch_size=2",
        "--data.evaluations={texts: {class_path: Perplexity, init_args: {corpus: {class_path: TextFiles, init_args: "
        f"{{test: {texts / 'test'}}}}}, context_lengths: [32, 64, 128], stride: 16, batch_size: 4}}}}}}",
    ]


@pytest.fixture
def store_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory of this test alone."""
    monkeypatch.setenv("LIT_PI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def words_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens that adds `<s>` and truncates, as a tokenizer from the hub may."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([WORDS], trainer)
    backend.enable_truncation(8)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The one line that a command says before it exits with status 2."""

    from lit_pi.cli import run

    def refuse(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lit-pi", *words])
        monkeypatch.setattr(threading, "excepthook", threading.excepthook)
        with pytest.raises(SystemExit) as stop:
            run()
        assert stop.value.code == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-pi: error: ")]
        assert len(said) == 1
        return said[0]

    return refuse
