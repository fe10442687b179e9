"""An exported model that changed afterwards is refused in one sentence, whoever reads it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import lit_pi
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError
from lit_pi.export import command, stock, verification
from lit_pi.files import write_sealed

pytestmark = pytest.mark.filterwarnings("ignore")

SEAL, WEIGHTS = "lit_pi_seal.json", "model.safetensors"
FIELDS = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories `whole` and `shards`, verified in this process."""

    def here(words: list, **_: Any) -> subprocess.CompletedProcess:
        stock.main(*map(str, words[-3:]))
        return subprocess.CompletedProcess(words, 0, "", "")

    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification.subprocess, "run", here)
        for name, size in {"whole": "5GB", "shards": "50KB"}.items():
            model = LlamaForCausalLM(LlamaConfig(**FIELDS))
            lit_pi.save(model, load_tokenizer("bytes"), folder / name, max_shard_size=size)
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A directory to spoil."""
    return Path(shutil.copytree(exported / "whole", tmp_path / "model"))


def zeroed(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-6000] + bytes(4096) + content[-6000 + 4096 :])


def edited(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("1e-06", "1e-05"))


def foreign(folder: Path) -> None:
    other = {name: torch.rand_like(tensor) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(other, folder / "other.safetensors", {"format": "pt"})
    (folder / "other.safetensors").rename(folder / WEIGHTS)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def retyped(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes().replace(b'"F32"', b'"I32"'))


def weightless(folder: Path) -> None:
    said = json.loads((folder / SEAL).read_text())["files"]
    write_sealed(folder / SEAL, {"files": {name: entry for name, entry in said.items() if name != WEIGHTS}})


def unsealed(folder: Path, instead: Callable[[Path], Any]) -> None:
    (folder / SEAL).unlink()
    instead(folder / SEAL)


def resealed(folder: Path) -> None:
    (folder / SEAL).write_text((folder / SEAL).read_text().replace('"size": ', '"size": 1'))


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "zeros": (lambda folder: zeroed(folder / WEIGHTS), rf"{WEIGHTS} is not what was exported \(model\."),
    "a config": (edited, r"config.json is not what was exported \(it has another checksum\): export the model again"),
    "a foreign file": (foreign, rf"{WEIGHTS} is not what was exported \(.* in it has another checksum\)"),
    "a cut file": (lambda folder: (folder / WEIGHTS).write_bytes(b"cut"), r"it has 3 bytes and not"),
    "a pickle": (pickled, rf"{WEIGHTS} is not what was exported \(it is missing\)"),
    "integers": (retyped, rf"{WEIGHTS} is not what was exported \(its header has another checksum\)"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer.json .* \(it is missing\)"),
    "another seal": (resealed, rf"{SEAL} says .* and is damaged \(it is not what was written, by its checksum\)"),
    "a folder for a seal": (lambda folder: unsealed(folder, Path.mkdir), rf"{SEAL} .* is damaged \(it is no file\)"),
    "a seal that leads nowhere": (
        lambda folder: unsealed(folder, lambda seal: seal.symlink_to("nowhere")),
        rf"{SEAL} .* is damaged \(it is no file\)",
    ),
    "a pipe for a seal": (lambda folder: unsealed(folder, os.mkfifo), rf"{SEAL} .* is damaged \(it is no file\)"),
    "a seal without weights": (weightless, rf"{SEAL} .* is damaged \(it knows no weights\)"),
    "an empty seal": (lambda folder: (folder / SEAL).write_bytes(b""), rf"{SEAL} .* is damaged \(it is not valid JSON"),
    "a config saved by transformers": (
        lambda folder: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder),
        rf"config.json is not what was exported .*, or, if that was done on purpose, remove .*{SEAL}",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_named_and_reads_as_before_without_the_seal(change: str, copied: Path) -> None:
    spoil, said = CHANGES[change]
    spoil(copied)
    with pytest.raises(UserError, match=said):
        lit_pi.load(copied)
    with pytest.raises(UserError, match=rf"not what was exported|{SEAL}"):
        command.export(check=copied)
    (copied / SEAL).rmdir() if (copied / SEAL).is_dir() else (copied / SEAL).unlink()
    if change not in ("a cut file", "no tokenizer", "integers"):
        lit_pi.load(copied)


@pytest.mark.parametrize(
    "name",
    [
        *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "adapter_config.json", "vocab.json"),
        *(
            "model.safetensors.index.json",
            "other.safetensors",
            "pytorch_model.bin",
            "additional_chat_templates/a.jinja",
        ),
    ],
)
def test_what_transformers_would_read_was_not_added(name: str, copied: Path) -> None:
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_text("{}")
    said = rf"{name} is not what was exported \(it was added\): export the model again, or, .*remove .*{SEAL}"
    with pytest.raises(UserError, match=said):
        lit_pi.load(copied)
    with pytest.raises(UserError, match=said):
        command.export(check=copied)


@pytest.mark.parametrize("change", ["zeros", "a config"])
def test_commands_say_it_in_a_line(change: str, copied: Path, tiny: list[str], refused: Callable[..., str]) -> None:
    spoil, said = CHANGES[change]
    spoil(copied)
    options = [*tiny[:2], tiny[4], tiny[-1], "--model.llm=Pretrained", f"--model.llm.path={copied}"]
    where = f"--trainer.default_root_dir={copied.parent / 'run'}"
    assert said.split(" ")[0] in (line := refused("test", *options, where)) and f"remove {copied / SEAL}" in line
    assert not (copied.parent / "run" / "results.json").exists()


def test_a_shard_in_which_weights_are_blank_is_named(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported / "shards", tmp_path / "model"))
    lit_pi.load(folder)
    (_, shard, *_) = sorted(folder.glob("model-*"))
    zeroed(shard)
    with pytest.raises(UserError, match=f"{shard.name} is not what was exported"):
        lit_pi.load(folder)


@pytest.mark.parametrize("name", ["whole", "shards"])
def test_what_is_as_it_was_passes_whatever_lies_beside_it(name: str, exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported / name, tmp_path / "model"))
    said = json.loads((folder / SEAL).read_text())["files"]
    assert said.keys() == {path.name for path in folder.iterdir()} - {SEAL, "README.md"}
    assert all(entry["size"] == (folder / file).stat().st_size for file, entry in said.items())
    (folder / "README.md").write_text("edited")
    for free in ("notes.txt", "LICENSE", "results.json", "._model.safetensors"):
        (folder / free).write_text("mine")
    ours = lit_pi.load(folder).model.state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert len(AutoTokenizer.from_pretrained(folder)) == 258
