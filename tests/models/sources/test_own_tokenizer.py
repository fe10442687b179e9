"""Runs and models bring their tokenizers to every command."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import lit_pi
from lit_pi.cli import LitPiCLI
from lit_pi.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.export import command
from lit_pi.models import Pretrained
from lit_pi.models.sources.checkpoint import read_content
from lit_pi.models.sources.in_memory import InMemory
from lit_pi.models.sources.own_tokenizer import fit_of
from lit_pi.models.sources.provenance import KEY

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, words_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("words")
    words_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], words: Path) -> Path:
    """One step on the tokenizer."""
    run = tmp_path_factory.mktemp("run")
    fit(tiny, run, f"--data.tokenizer={words}", "--trainer.max_steps=1")
    return run


def fit(tiny: list[str], run: Path, *options: str) -> None:
    own = ["--model.llm.config.vocab_size=400", "--trainer.limit_val_batches=0", f"--trainer.default_root_dir={run}"]
    LitPiCLI(["fit", *tiny, *own, *options])


def measured(tiny: list[str], run: Path, *options: str) -> str:
    """The fingerprint of the tokenizer in a test's results."""
    LitPiCLI(["test", *tiny, "--trainer.limit_test_batches=1", f"--trainer.default_root_dir={run}", *options])
    (record,) = json.loads((run / "results.json").read_text())["records"]
    return record["protocol"]["tokenizer"]["fingerprint"]


def test_a_run_is_tested_and_resumed_with_its_own(tiny: list[str], run: Path, words: Path, tmp_path: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    from_scratch = ["--model.llm.config.vocab_size=400", f"--ckpt_path={checkpoint}"]
    assert measured(tiny, tmp_path / "tested", *from_scratch) == tokenizer_fingerprint(load_tokenizer(str(words)))
    # The checkpoint says it, wherever it is.
    alone = shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    for path in (run, checkpoint, alone):
        assert Pretrained(str(path)).tokenizer()["name"] == str(words)
    with pytest.raises(UserError, match="the tokenizer bytes does not belong to"):
        fit(tiny, run, "--ckpt_path=last", "--trainer.max_steps=2", "--data.tokenizer=bytes")


def test_a_resumed_checkpoint_is_checked_where_no_command_line_said_it(run: Path) -> None:
    """As `trainer.fit(module, data, ckpt_path=...)` does it, for which the data comes first."""
    (checkpoint,) = (run / "checkpoints").iterdir()
    data = LongContextData(tokenizer="bytes")
    with pytest.raises(UserError, match="the tokenizer bytes does not belong to"):
        data.check_trained_with(read_content(checkpoint)[KEY]["tokenizer"], str(checkpoint))
    data.check_trained_with(None, str(checkpoint))


def test_python_and_export_follow(run: Path, words: Path, tmp_path: Path) -> None:
    _, tokenizer = lit_pi.load(run)
    assert tokenizer.name_or_path == str(words)
    for refused in (
        lambda: lit_pi.load(run, tokenizer="bytes"),
        lambda: command.export(str(run), tmp_path / "out", tokenizer="bytes"),
    ):
        with pytest.raises(UserError, match="the tokenizer bytes does not belong to"):
            refused()
    assert not list(tmp_path.iterdir())


def test_a_directory_is_measured_with_its_own(
    tiny: list[str], words: Path, tmp_path: Path, words_tokenizer: PreTrainedTokenizerFast
) -> None:
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    given = tmp_path / "given"
    LlamaForCausalLM(config).save_pretrained(given)
    assert Pretrained(str(given)).tokenizer() == {
        "model": str(given), "name": None, "vocabulary": None, "vocab_size": 400,
    }  # fmt: skip
    words_tokenizer.save_pretrained(given)
    assert measured(
        tiny, tmp_path / "run", "--model.llm=Pretrained", f"--model.llm.path={given}"
    ) == tokenizer_fingerprint(words_tokenizer)
    model, _ = lit_pi.load(given)
    assert InMemory(model).tokenizer() is not None
    with pytest.raises(UserError, match="the tokenizer bytes does not belong to"):
        lit_pi.perplexity_curve(model, load_tokenizer("bytes"), "a text", [8], 4)
    with pytest.raises(UserError, match="no model at"):
        Pretrained(str(tmp_path / "nowhere")).tokenizer()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": 3}, "says `model: 3`"),
        ({"model": {"llm": 5}}, "says `model.llm: 5`"),
        ({"model": {"llm": {"init_args": [1]}}}, "says `model.llm.init_args: "),
        ({"model": {"llm": {}, "train_positions": {"init_args": {"target_context": "long"}}}}, "target_context: long`"),
        ({"data": {"context_length": True, "packing": "packed"}}, "says `data.context_length: True`"),
        ({"data": {"context_length": 8, "packing": "packed", "train": {}}}, "says `data.train.class_path: None`"),
        (None, "holds nothing and no configuration"),
        ("word", "holds `word` and no configuration"),
    ],
)
def test_a_configuration_of_something_else_is_told(change: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    good = {"model": {"llm": {}}, "data": {"context_length": 8, "packing": "packed", "train": None}}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(good))
    assert fit_of(tmp_path / "checkpoints" / "x.ckpt") == good
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(good | change if isinstance(change, dict) else change))
    with pytest.raises(UserError, match=re.escape(said)):
        fit_of(tmp_path / "checkpoints" / "x.ckpt")
