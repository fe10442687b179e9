"""A store that is not what was written is noticed, wherever it is damaged, and one that is unfinished begins again."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numbers_corpus import Numbers
from torch.utils.data import DataLoader

from lit_pi.data import build as build_module
from lit_pi.data import store as store_module
from lit_pi.data.build import open_store
from lit_pi.data.documents import checked_tokens
from lit_pi.data.store import StoreWriter, TokenStore
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError

Damage = Callable[[Path], object]


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def zeroed(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(bytes(4096) + content[4096:])


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def stored(count: int = 300) -> TokenStore:
    return open_store(Numbers(count), "train", load_tokenizer("bytes"))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_PI_CACHE", str(tmp_path_factory.mktemp("cache")))
        return stored().directory


FILES = (
    "manifest.json", "tokens.bin", "token_blocks.bin", "token_offsets.bin", "document_bytes.bin", "prompt_tokens.bin",
    "sources.bin", "hashes.bin", "ids.bin", "id_offsets.bin",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_not_what_was_written_is_noticed(name: str, intact: Path, tmp_path: Path) -> None:
    assert {file.name for file in intact.iterdir()} == set(FILES)
    for damage in (flipped, zeroed, truncated, Path.unlink):
        copy = shutil.copytree(intact, tmp_path / damage.__name__)
        assert TokenStore(copy).tokens[:].any()  # a copy is as good
        before = (copy / name).read_bytes()
        damage(copy / name)
        if (copy / name).exists() and (copy / name).read_bytes() == before:
            continue  # zeros stood there before
        with pytest.raises(UserError, match=f"{re.escape(str(copy))}.*delete"):
            _ = TokenStore(copy).tokens[:]


def test_a_manifest_that_says_something_else_is_refused(intact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(intact, tmp_path / "copy")
    said = json.loads((copy / "manifest.json").read_text())
    for change in ({"dtype": "float16"}, {"checksums": {}}, {"sources": {}}, {"format": 6}):
        (copy / "manifest.json").write_text(json.dumps(said | change))
        with pytest.raises(UserError, match=r"is no token store .it is not what was written"):
            TokenStore(copy)
    for content in ("null", "[]", "{", "{}", "\xff", "[" * 100_000):
        (copy / "manifest.json").write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match=f"^{copy} is no token store .*: delete it, and it is built again$"):
            TokenStore(copy)


@pytest.mark.usefixtures("store_cache")
def test_a_store_in_the_place_of_another_is_noticed() -> None:
    one, two = stored(300).directory, stored(299).directory
    shutil.rmtree(one)
    two.rename(one)
    with pytest.raises(UserError, match=f"{one} is not the store that belongs there, but one of numbers, train"):
        stored(300)
    shutil.rmtree(one)
    assert len(stored(300)) == 293


def test_tokens_are_checked_where_they_are_read(
    intact: Path, tmp_path: Path, store_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TokenStore(intact).tokens[:]
    for module in (store_module, checked_tokens):
        monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    store = stored()
    rng = np.random.default_rng(0)
    for start, length in zip(rng.integers(0, len(whole), 300), rng.integers(0, 200, 300), strict=True):
        assert (store.tokens[start : start + length] == whole[start : start + length]).all()
    content = bytearray((store.directory / "tokens.bin").read_bytes())
    content[64 * 5 + 3] ^= 1
    (store.directory / "tokens.bin").write_bytes(content)
    damaged = TokenStore(store.directory)
    assert damaged.tokens[32 * 6 :].tolist() == whole[32 * 6 :].tolist()
    assert damaged.tokens[: 32 * 5].tolist() == whole[: 32 * 5].tolist()
    for extent in (slice(32 * 5, 32 * 5 + 1), slice(32 * 6 - 1, 32 * 6), slice(0, None)):
        with pytest.raises(UserError, match=r"tokens.bin is damaged from byte 320 on"):
            damaged.tokens[extent]


def test_damage_that_a_worker_reads_is_one_sentence(intact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(intact, tmp_path / "copy")
    flipped(copy / "tokens.bin")
    store = TokenStore(copy)
    loader = DataLoader(range(len(store)), batch_size=None, num_workers=1, collate_fn=store.document)
    with pytest.raises(UserError, match=rf"^{copy}/tokens.bin is damaged from byte .*, and it is built again$"):
        list(loader)


@pytest.mark.parametrize("name", [None, "manifest.json", "tokens.bin", "ids.bin"])
@pytest.mark.parametrize("damage", [flipped, zeroed, truncated, Path.unlink])
def test_an_unfinished_store_goes_on_or_begins_again(
    name: str | None, damage: Damage, intact: Path, store_cache: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def interrupted(writer: StoreWriter) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "BATCH_CHARACTERS", 20_000)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StoreWriter, "finish", interrupted)
        stored()
    (partial,) = store_cache.glob("stores/*.partial")
    if name is not None:
        damage(partial / name)
    found = stored().directory
    assert {file.name: file.read_bytes() for file in found.iterdir()} == {
        file.name: file.read_bytes() for file in intact.iterdir()
    }
    anew = name is not None and (name, damage) != ("manifest.json", Path.unlink)
    assert any("left unfinished, and is built anew" in message for message in caplog.messages) == anew


@pytest.mark.parametrize("inside", [False, True])
def test_a_link_in_place_of_an_unfinished_store_is_not_followed(inside: bool, intact: Path, store_cache: Path) -> None:
    mine = store_cache / "mine"
    mine.mkdir(parents=True)
    (mine / "tokens.bin").write_text("mine")
    partial = store_cache / "stores" / f"{intact.name}.partial"
    (partial if inside else partial.parent).mkdir(parents=True)
    (partial / "tokens.bin" if inside else partial).symlink_to(mine / "tokens.bin" if inside else mine)
    assert stored().directory.name == intact.name
    assert {file.name: file.read_text() for file in mine.iterdir()} == {"tokens.bin": "mine"}


def test_a_file_in_place_of_an_unfinished_store_makes_room(intact: Path, store_cache: Path) -> None:
    (store_cache / "stores").mkdir(parents=True)
    (store_cache / "stores" / f"{intact.name}.partial").write_text("")
    assert len(stored()) == len(TokenStore(intact))
