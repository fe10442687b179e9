"""Tokenizers by name, and the one that is always there."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lit_pi.errors import UserError
from lit_pi.files import check_fetched
from lit_pi.gguf_file import TOKENS, Header, is_gguf, read_header
from lit_pi.hub import hub_offers
from lit_pi.seal import Seal

FILE = "tokenizer.json"
BYTES = "bytes"
"""Name of the embedded tokenizer."""
AS_GPT_2 = {"default", "gpt-2", "mpt", "olmo", "phi-2"}
"""llama.cpp's names for the words into which GPT-2 cuts text before its tokens."""


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer; code from the hub is never run.

    Args:
        name: `bytes` for the embedded tokenizer, whose ids 0 to 255 are the bytes of the UTF-8 text, with `<s>` = 256
            and `</s>` = 257; or a directory in Hugging Face format, or its `tokenizer.json`; a GGUF file; or an id on
            the hub.

    Raises:
        UserError: there is no such tokenizer, it is not one of the `tokenizers` library, or not what was exported.
    """
    if name == BYTES:
        return _byte_tokenizer()
    path = Path(name).expanduser()
    if path.is_file() and path.name == "tokenizer.json":
        path = path.parent
    if is_gguf(path):
        return _of_gguf(path)
    if path.exists():
        for file in path.glob("tokenizer*"):
            if file.is_file():
                check_fetched(file)
        Seal(path).check_description()
        return _load(str(path), "name a directory with a tokenizer.json")
    if name.startswith((".", "~", "/")) or path.suffix == ".json":
        raise UserError(f"there is no tokenizer at {name}: name a directory with a tokenizer.json, or `{BYTES}`")
    return _load(name, f"bring its files as a local directory with a tokenizer.json, or name `{BYTES}`")


def check_tokenizer(tokenizer: object) -> None:
    """Check that something is a tokenizer of the `tokenizers` library.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"the tokenizer is a {type(tokenizer).__name__}: give one of the `tokenizers` library, as "
            "AutoTokenizer.from_pretrained or lit_pi.load returns it"
        )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Digest of everything that decides which tokens a text becomes: 16 hexadecimal digits."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Calls of the tokenizer leave their truncation and padding behind.
    relevant = {key: value for key, value in backend.items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of what encodes text, whose settings stay its own: nothing cut or padded, special tokens read as text."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def first_tokens(backend: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Texts before their token number `max_tokens`, and before a character that this token has a part of.

    Args:
        backend: encodes the texts (see `plain_backend`).
        texts: texts to cut.
        max_tokens: how many tokens of each stay at most.
    """
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    return [
        text[: encoding.offsets[max_tokens][0]] if len(encoding) > max_tokens else text
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    # ByteLevel writes a byte that does not print as itself as the next free character from 256 on.
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in printed}
    symbols |= {byte: chr(256 + index) for index, byte in enumerate(sorted(set(range(256)) - set(printed)))}
    backend = Tokenizer(models.BPE(vocab={symbol: byte for byte, symbol in symbols.items()}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        name_or_path=BYTES,
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def _of_gguf(path: Path) -> PreTrainedTokenizerFast:
    header = read_header(path)
    if TOKENS not in header.metadata:
        raise UserError(f"there is no tokenizer in {path}: name the one that the model was trained with")
    try:
        # Not by `AutoTokenizer`, which reads the file three times.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # whatever a stranger's file makes of a reader
        raise UserError(
            f"transformers cannot read the tokenizer in {path} ({_reason(error)}): name a directory with a "
            "tokenizer.json"
        ) from error
    tokenizer.name_or_path = str(path)
    for name in ("bos_token", "eos_token"):  # transformers 5.17 takes one for the other
        number = header.metadata.get(f"tokenizer.ggml.{name}_id")
        if number is not None and number < header.metadata[TOKENS]:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(number))
    if len(tokenizer) > header.metadata[TOKENS]:
        tokenizer = _within(tokenizer, header.metadata[TOKENS])
    _say_what_differs(tokenizer, header, path)
    return tokenizer


def _say_what_differs(tokenizer: PreTrainedTokenizerFast, header: Header, path: Path) -> None:
    """Say what a file asks for and transformers leaves out, by which a few texts become other tokens."""
    kind, backend = header.metadata.get("tokenizer.ggml.pre", "default"), tokenizer.backend_tokenizer
    left_out = []
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) and kind not in AS_GPT_2:
        left_out.append(f"words as `{kind}` cuts them (numbers and runs of spaces; it cuts them as GPT-2 does)")
    prefixed = backend.encode("a", add_special_tokens=False).tokens[:1] in (["▁a"], ["▁"])
    if prefixed and not header.metadata.get("tokenizer.ggml.add_space_prefix", True):
        left_out.append("no space before a text")
    if left_out:
        rank_zero_info(
            f"The tokenizer in {path} wants {' and '.join(left_out)}, which transformers leaves out: a few texts may "
            "become other tokens than in the model's training."
        )


def _within(tokenizer: PreTrainedTokenizerFast, size: int) -> PreTrainedTokenizerFast:
    """A tokenizer without the tokens that transformers puts behind a vocabulary of this size, for no model to know."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["id"] < size]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        name_or_path=tokenizer.name_or_path,
        chat_template=tokenizer.chat_template,
        **{name: token for name, token in tokenizer.special_tokens_map.items() if token in tokenizer.get_vocab()},
    )


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")


def _damage(folder: Path) -> str | None:
    """Why the `tokenizers` library cannot read a folder's tokenizer.json, which transformers takes for granted."""
    try:
        Tokenizer.from_file(str(folder / FILE))
    except Exception as error:
        return f"its {FILE} is damaged: {_reason(error)}" if (folder / FILE).is_file() else None
    return None


def _load(name: str, remedy: str) -> PreTrainedTokenizerFast:
    try:
        here = Path(name).exists() or not hub_offers(name)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, local_files_only=here)
    except Exception as error:  # whatever a stranger's files make of a reader
        if "trust_remote_code" in str(error):
            raise UserError(
                f"the tokenizer {name} comes with code of its own (auto_map), which is never run here: {remedy}"
            ) from error
        raise UserError(
            f"cannot load the tokenizer {name} ({_damage(Path(name)) or _reason(error)}): {remedy}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"the tokenizer {name} is not one of the `tokenizers` library: name one with a tokenizer.json")
    return tokenizer
