"""The commands that faults meet: how each is asked, and a digest of what it leaves."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

LIT_PI = Path(sys.executable).with_name("lit-pi")
"""The installed command."""

TEXT = "the position of a token turns its query and its key by an angle that grows with the distance"

MODEL = [
    "--model.llm=FromScratch", "--model.position=Extrapolate", "--model.llm.config={vocab_size: 264, hidden_size: 32, "
    "intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, max_position_embeddings: 64}",
]  # fmt: skip
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
TRAIN = ["--data.train=TextFiles", "--data.train.train=texts/train", "--data.context_length=64", "--data.batch_size=2"]
STEPS = ["--trainer.max_steps=60", "--checkpoint.every_n_train_steps=10", "--trainer.limit_val_batches=0"]
CURVE = (
    "--data.evaluations={texts: {class_path: Perplexity, init_args: {corpus: {class_path: TextFiles, init_args: "
    "{test: texts/test}}, context_lengths: [32, 64, 128], stride: 16, batch_size: 4}}}"
)


class Command(NamedTuple):
    """A command of lit-pi.

    Attributes:
        words: its words, which are the same when it is asked again.
        left: digests what it has left in a folder.
    """

    words: list[str]
    left: Callable[[Path], str]


def fit(*words: str, run: str = "run") -> Command:
    where = [f"--trainer.default_root_dir={run}", "--ckpt_path=auto"]
    return Command(["fit", *QUIET, *MODEL, *TRAIN, *STEPS, *where, *words], lambda folder: _weights(folder / run))


def measure(model: str, run: str) -> Command:
    words = ["--model.llm=Pretrained", f"--model.llm.path={model}", "--model.position=Extrapolate"]
    return Command(
        ["test", *QUIET, *words, CURVE, f"--trainer.default_root_dir={run}"], lambda folder: _curve(folder / run)
    )


COMMANDS = {
    "fit": fit(),
    "prepare": Command(
        ["prepare", "--corpus=TextFiles", "--corpus.train=texts/test", "--corpus.test=texts/train",
         "--tokenizer=bytes"],  # the base has stores of the texts the other way round
        lambda folder: _stores(folder / "cache"),
    ),
    "test": measure("base/run", "tested"),
    "export": Command(
        ["export", "--checkpoint=base/run", "--output=exported"], lambda folder: _files(folder / "exported", "*.*s*")
    ),
    "report": Command(["report", "base/tested", "--output=report"], lambda folder: _files(folder / "report", "*.md")),
    "predict": Command(
        ["predict", *QUIET, "--model.llm=Pretrained", "--model.llm.path=base/run", "--model.position=Extrapolate",
         "--data.predict.files=prompts.txt", "--data.predict.max_new_tokens=8", "--trainer.default_root_dir=predicted"],
        lambda folder: _files(folder / "predicted", "predictions*"),
    ),
}  # fmt: skip


def make_texts(folder: Path) -> None:
    """Documents to train on and to measure, and prompts."""
    chance = random.Random(0)
    for split, count in (("train", 12), ("test", 5)):
        (folder / "texts" / split).mkdir(parents=True)
        for number in range(count):
            words = chance.choices(TEXT.split(), k=chance.randint(90, 300))
            (folder / "texts" / split / f"{number:02d}.txt").write_text(" ".join(words))
    (folder / "prompts.txt").write_text("the position of a token")


def make_base(folder: Path) -> None:
    """What commands begin with: texts, a model that was trained, one in shards, one that was exported, and a test."""
    make_texts(folder)
    base = folder / "base"
    base.mkdir()
    shards = fit("--trainer.strategy=fsdp2", "--trainer.devices=1", run="base/sharded")
    export = ["export", "--checkpoint=base/run", "--output=base/exported"]
    for words in (fit(run="base/run").words, shards.words, export, measure("base/run", "base/tested").words):
        done = asked(words, folder)
        if done.returncode:
            sys.exit(f"{words[0]} of the base failed: {done.stderr[-2000:]}")


def fresh(base: Path, folder: Path) -> Path:
    """A copy of the base."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    return folder


def start(words: list[str], folder: Path, before: Sequence[str] = (), **options: object) -> subprocess.Popen[str]:
    """Start the installed command in a folder, with a cache of its own there."""
    environment = {**os.environ, "LIT_PI_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*before, str(LIT_PI), *words], cwd=folder, env=environment, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def asked(
    words: list[str], folder: Path, before: Sequence[str] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    """Ask a command, and wait; one that hangs is killed and gets status 124."""
    process = start(words, folder, before, **options)
    try:
        said = process.communicate(timeout=300)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return subprocess.CompletedProcess(words, 124, "", process.communicate()[1])
    return subprocess.CompletedProcess(words, process.returncode, "", said)


def one_sentence(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command ended as a mistake or a fault should: told in one line, without a traceback."""
    return done.returncode in (1, 2) and done.stderr.count("lit-pi: error: ") == 1 and "Traceback" not in done.stderr


def _weights(run: Path) -> str:
    newest = max(run.glob("checkpoints/*.ckpt"))
    state = torch.load(newest, weights_only=True)
    digest = hashlib.sha256(str(state["global_step"]).encode())
    for name, tensor in sorted(state["state_dict"].items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _curve(run: Path) -> str:
    records = json.loads((run / "results.json").read_text())["records"]
    return json.dumps([record["curve"] for record in records])


def _stores(cache: Path) -> str:
    return _files(cache, "**/*.bin")


def _files(folder: Path, pattern: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
