"""Files of a model that are damaged, absent or hostile are refused in a sentence, and nothing of them is run."""

import json
import math
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stored_models import POINTER, WAYS, WEIGHT, Weights, at_once, save_checkpoint
from transformers import AutoModelForCausalLM

from lit_pi.errors import UserError
from lit_pi.files import remove
from lit_pi.models.sources.checkpoint import read_checkpoint, read_content

Change = Callable[[Path], object]


class Hostile:
    """What writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def header(fields: dict[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


def content(data: bytes, name: str = "model.safetensors") -> Change:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str) -> Change:
    """The last bytes of the first file of this name are lost."""

    def change(folder: Path) -> None:
        (file, *_) = sorted(folder.glob(name))
        file.write_bytes(file.read_bytes()[:-3])

    return change


def index(change: Callable[[dict[str, str]], object]) -> Change:
    """The index says something else."""

    def rewrite(folder: Path) -> None:
        file = folder / "model.safetensors.index.json"
        places = json.loads(file.read_text())["weight_map"]
        file.write_text(json.dumps(change(places)))

    return rewrite


def moved(name: str, to: str) -> Change:
    return index(lambda places: {"weight_map": places | {name: to}})


def pickled(stored: object) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(stored, folder / "pytorch_model.bin")

    return change


def said(**fields: object) -> Change:
    """The config says something else."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def doubled(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("model-*"))
    save_file(load_file(first) | load_file(second), second, {"format": "pt"})


ABSENT, UNREADABLE, INDEX = "model-9.safetensors", "holds no weights that can be read", "model.safetensors.index.json"
DAMAGED: dict[str, tuple[str, Change, str]] = {
    "truncated": ("plain", cut("model.safetensors"), UNREADABLE),
    "empty": ("plain", content(b""), UNREADABLE),
    "something else": ("plain", content(bytes(range(256)) * 4), UNREADABLE),
    "a header of a terabyte": ("plain", content(struct.pack("<Q", 2**40) + b"{}"), UNREADABLE),
    "gigabytes that are not there": ("plain", content(header(tensor("F32", [2**30], 0, 2**32), b"1234")), UNREADABLE),
    "a tensor before the file": ("plain", content(header(tensor("F32", [1], -4, 0), b"1234")), UNREADABLE),
    "four bits": ("plain", content(header(tensor("F4", [2], 0, 1), b"1")), "stores a as F4"),
    "nothing": ("plain", content(header({})), "missing: lm_head.weight, model.embed_tokens.weight"),
    "a pointer": ("plain", content(POINTER), r"model.safetensors is a Git LFS pointer .* `git lfs pull`"),
    "no file": (
        "plain",
        lambda folder: (folder / "model.safetensors").unlink(),
        "there is no model.safetensors and no",
    ),
    "no config": ("plain", lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
    "a config that is no JSON": ("plain", content(b"{", "config.json"), "not a valid JSON file"),
    "a config that is a list": ("plain", content(b"[]", "config.json"), "nothing that transformers can read"),
    "a config without a type": ("plain", content(b"{}", "config.json"), "`model_type`"),
    "a config's pointer": ("plain", content(POINTER, "config.json"), "config.json is a Git LFS pointer"),
    "an adapter": ("plain", content(b"{}", "adapter_config.json"), "holds an adapter of peft"),
    "a pickle of a list": ("plain", pickled([1]), "pytorch_model.bin holds no weights that can be read"),
    "a pickle of names": ("plain", pickled({"a": torch.ones(1, device="meta")}), "without their values there are a"),
    "an activation": ("plain", said(hidden_act="zzz"), r"KeyError: 'zzz'; config.json has `hidden_act` 'zzz'\)"),
    "no heads": ("plain", said(num_attention_heads=0), r"by zero; config.json has `num_attention_heads` 0\)"),
    "a dtype": ("plain", said(dtype="bogus"), r"config.json has `dtype` 'bogus'\)"),
    "a rope type": ("plain", said(rope_parameters={"rope_type": "zzz"}), r"config.json has `rope_type` 'zzz'\)"),
    "a factor in quotes": (
        "plain",
        said(rope_parameters={"rope_type": "linear", "factor": "4"}),
        r"config.json has `factor` '4'\)",
    ),
    "a number in quotes": ("plain", said(hidden_size="8"), "has `hidden_size` '8': it must be of type int; correct it"),
    "a token in words": (
        "plain",
        said(eos_token_id="a"),
        "has `eos_token_id` 'a': it may not be of this type; correct it",
    ),
    "a number of architectures": (
        "plain",
        said(architectures=5),
        "has `architectures` 5: it m",
    ),
    "a context of terabytes": (
        "plain",
        said(max_position_embeddings=10**12),
        "the context of .* is 1000000000000 tokens",
    ),
    "an epsilon below zero": (
        "plain",
        said(rms_norm_eps=-1.0),
        "rms_norm_eps of the config of .* is -1.0: it must be 0",
    ),
    "an endless epsilon": (
        "plain",
        said(rms_norm_eps=math.inf),
        "rms_norm_eps of .* is inf, which is not finite: it mu",
    ),
    "an endless field": ("plain", said(mine=-math.inf), "mine of the config of .* is -inf, which is not finite"),
    "an empty quantisation": ("plain", said(quantization_config={}), "has an empty quantization_config"),
    "a pickle of more": ("plain", pickled({"a": torch.ones(1), "b": 1}), "it is no mapping of names to tensors"),
    "a shard is absent": (
        "shards",
        lambda folder: (folder / "model-00002-of-00010.safetensors").unlink(),
        r"names model-00002-of-00010.safetensors, absent from",
    ),
    "a shard is truncated": ("shards", cut("model-00002*"), f"model-00002-of-00010.safetensors {UNREADABLE}"),
    "a shard is a pointer": ("shards", content(POINTER, "model-00002-of-00010.safetensors"), "00002.* Git LFS pointer"),
    "two shards hold the same": ("shards", doubled, "both hold "),
    "an index of a file that is absent": ("shards", moved(WEIGHT, ABSENT), f"names {ABSENT}, absent from"),
    "an index of a file above": ("shards", moved(WEIGHT, "../plain/model.safetensors"), r"names \.\./.* outside"),
    "an index of a file elsewhere": ("shards", moved(WEIGHT, "/etc/passwd"), "names /etc/passwd, which lies outside"),
    "an index of the folder": ("shards", moved(WEIGHT, "."), r"index.json names '\.' where a file's name should be"),
    "an index of nothing": ("shards", moved(WEIGHT, ""), "index.json names '' where a file's name should be"),
    "an index of more weights": ("shards", moved("more", "model-00001-of-00010.safetensors"), "where more is stored"),
    "an index without its map": ("shards", index(lambda places: {"metadata": {}}), "has no `weight_map`"),
    "an index that is a list": ("shards", index(lambda places: []), "has no `weight_map`"),
    "an index of numbers": ("shards", index(lambda places: {"weight_map": {WEIGHT: 1}}), "has no `weight_map`"),
    "an index that is no JSON": ("shards", content(b"{", INDEX), "is not valid JSON"),
    "an index too deep": ("shards", content(b"[" * 100_000, INDEX), "is not valid JSON"),
    "an index that is no text": ("shards", content(b"\xff\xfe", INDEX), "is not valid JSON"),
    "an index's pointer": ("shards", content(POINTER, INDEX), "index.json is a Git LFS pointer"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_directories_are_refused_in_a_sentence(case: str, models: Path, tmp_path: Path) -> None:
    model, change, said = DAMAGED[case]
    shutil.copytree(models / model, tmp_path / "m")
    change(tmp_path / "m")
    for load in WAYS:
        with pytest.raises(UserError, match=said) as refusal:
            load(tmp_path / "m")
        assert str(tmp_path) in str(refusal.value)


def test_one_file_goes_before_shards_as_in_transformers(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "shards", tmp_path / "m")
    shutil.copy(models / "plain" / "model.safetensors", tmp_path / "m")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "m").state_dict()
    for load in WAYS:
        assert all(torch.equal(weight, stock[name]) for name, weight in load(tmp_path / "m").state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights_are_read_and_what_else_a_pickle_does_is_not_done(
    zipped: bool, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "plain", tmp_path / "m")
    file = tmp_path / "m" / "pytorch_model.bin"
    weights = load_file(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(weights, file, _use_new_zipfile_serialization=zipped)
    for load in WAYS:
        assert all(torch.equal(weight, weights[name]) for name, weight in load(tmp_path / "m").state_dict().items())
    torch.save(weights | {"more": Hostile(tmp_path / "run")}, file, _use_new_zipfile_serialization=zipped)
    for load in WAYS:
        with pytest.raises(UserError, match="a pickle of anything but weights is not opened"):
            load(tmp_path / "m")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["[]", "{", ""])
def test_settings_of_generation_that_cannot_be_read_are_told(text: str, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "plain", tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=r"the generation_config.json of .* cannot be read"):
        at_once(tmp_path / "m")


def truncated(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])


def changed(name: str = "") -> Change:
    """One bit of a weight is another."""

    def flip(checkpoint: Path) -> None:
        file = checkpoint / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 8
        file.write_bytes(data)

    return flip


def of_another_step(name: str) -> Change:
    """A file of another checkpoint of the same run is in the place of this one's."""

    def take(checkpoint: Path) -> None:
        other = save_checkpoint(checkpoint.with_name("other.ckpt"), doubled_weights, sharded=True)
        shutil.copy(other / name, checkpoint / name)

    return take


def doubled_weights(weights: Weights) -> Weights:
    return {name: 2 * weight for name, weight in weights.items()}


def without_seals(checkpoint: Path) -> None:
    content = torch.load(checkpoint / "meta.pt", weights_only=True)
    del content["shards"]
    torch.save(content, checkpoint / "meta.pt")


NO_CHECKPOINT = "is not a checkpoint of lit_pi, or a damaged one"
BROKEN: dict[str, tuple[bool, Change, str]] = {
    "truncated": (False, truncated, NO_CHECKPOINT),
    "empty": (False, lambda path: path.write_bytes(b""), NO_CHECKPOINT),
    "something else": (False, lambda path: path.write_bytes(bytes(range(256))), NO_CHECKPOINT),
    "no record": (False, lambda path: torch.save({"state_dict": {}}, path), NO_CHECKPOINT),
    "hostile": (False, lambda path: torch.save({"lit_pi": Hostile(path.parent / "run")}, path), NO_CHECKPOINT),
    "a pointer": (False, lambda path: path.write_bytes(POINTER), "Git LFS pointer"),
    "a shard is absent": (True, lambda path: (path / "__0_0.distcp").unlink(), "a shard of .* is missing or damaged"),
    "a shard is something else": (True, content(bytes(9000), "__0_0.distcp"), "a shard of .* is missing or damaged"),
    "a shard is a pointer": (True, content(POINTER, "__0_0.distcp"), "distcp is a Git LFS pointer"),
    "a hostile description": (
        True,
        lambda path: (path / ".metadata").write_bytes(pickle.dumps(Hostile(path.parent / "run"))),
        "its .metadata cannot be read .it asks for posix.system",
    ),
    "a description of something else": (True, content(b"abc", ".metadata"), NO_CHECKPOINT),
    "a record of something else": (True, content(b"abc", "meta.pt"), NO_CHECKPOINT),
    "a weight is another": (
        False,
        changed(),
        r"is damaged .model\.\S*: a tensor in it is not what was written, by its checksum",
    ),
    "a weight of a shard is another": (True, changed("__0_0.distcp"), r"a shard of .* is missing or damaged"),
    "a shard of another step": (True, of_another_step("__0_0.distcp"), "__0_0.distcp is not .* with the others"),
    "a description of another step": (True, of_another_step(".metadata"), ".metadata is not .* with the others"),
    "a record of another step": (True, of_another_step("meta.pt"), "is not what was written with the others"),
    "shards without checksums": (True, without_seals, "an older lit_pi wrote them: export it with that one"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_checkpoints_are_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    sharded, change, said = BROKEN[case]
    place = save_checkpoint(tmp_path / "model.ckpt", sharded=sharded)
    change(place)
    for load in WAYS:
        with pytest.raises(UserError, match=said) as refusal:
            load(place)
        assert str(place) in str(refusal.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sharded", [False, True])
def test_no_bit_that_changes_goes_unnoticed(sharded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are what was written, or what is wrong is told; loading goes on where a bit says nothing."""
    monkeypatch.setattr("lit_pi.models.sources.stored.LIST_BYTES", 1024)  # most weights here are not much larger
    place = save_checkpoint(tmp_path / "model.ckpt", sharded=sharded)
    intact, place = shutil.move(place, tmp_path / "intact"), tmp_path / "copy"
    weights = {name: weight.clone() for name, weight in read_checkpoint(intact).weights.items()}
    content = read_content(intact)
    rng, noticed = random.Random(0), 0
    for _ in range(60):
        (shutil.copytree if sharded else shutil.copy)(intact, place)
        file = rng.choice(sorted(place.iterdir())) if sharded else place
        data = bytearray(file.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        try:
            saved = read_checkpoint(place)
            assert all(torch.equal(saved.weights[name], weight) for name, weight in weights.items())
            assert str(read_content(place)) == str(content)
        except UserError as error:
            assert str(place) in str(error)
            noticed += 1
        remove(place)
    assert noticed > 40


def test_numbers_in_the_record_of_the_model_are_what_was_written(tmp_path: Path) -> None:
    """Such as the rotations by which a strategy is recognised."""
    meta = save_checkpoint(tmp_path / "model.ckpt", sharded=True) / "meta.pt"
    intact = meta.read_bytes()
    records = [record for record in zipfile.ZipFile(meta).infolist() if "/data/" in record.filename]
    assert records
    for record in records:
        data, head = bytearray(intact), record.header_offset
        data[head + 30 + sum(struct.unpack_from("<HH", data, head + 26))] ^= 1
        meta.write_bytes(data)
        with pytest.raises(UserError, match=r"a damaged one .a tensor in it is not what was written"):
            read_content(meta.parent)


def test_shards_elsewhere_are_not_read(tmp_path: Path) -> None:
    first, second = (save_checkpoint(tmp_path / f"{name}.ckpt", sharded=True) for name in ("first", "second"))
    (first / "__0_0.distcp").rename(tmp_path / "other.distcp")
    described = pickle.loads((second / ".metadata").read_bytes())
    for place in described.storage_data.values():
        object.__setattr__(place, "relative_path", "../other.distcp")
    (second / ".metadata").write_bytes(pickle.dumps(described))
    with pytest.raises(UserError, match=r"its shard \.\./other.distcp lies elsewhere"):
        at_once(second)
