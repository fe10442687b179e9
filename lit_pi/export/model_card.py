"""The model card of an exported directory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData

from lit_pi import __version__
from lit_pi.errors import UserError, shown
from lit_pi.evaluations.tables import in_markdown
from lit_pi.export.origin import Origin
from lit_pi.export.verification import Verified
from lit_pi.gguf_file import is_gguf
from lit_pi.models.sources.provenance import rope_types
from lit_pi.positions import Rope
from lit_pi.seal import NAME as SEAL


class Exported(NamedTuple):
    """An exported model, as the card describes it.

    Attributes:
        origin: where the model comes from; None where it was in memory.
        position: description of the strategy.
        rope: the rotary embedding of pre-training.
        target_context: tokens of context the model is for.
        rope_parameters: the `rope_parameters` of the config as written.
        dtype: dtype of the weights.
    """

    origin: Origin | None
    position: dict[str, Any]
    rope: Rope
    target_context: int
    rope_parameters: dict[str, Any]
    dtype: str


def model_card(name: str, exported: Exported, verified: Verified) -> str:
    """Markdown: positions, where the model comes from, what was measured, how to use it, and what was verified.

    Args:
        name: name of the directory.
        exported: the exported model.
        verified: the comparison with stock transformers.
    """
    metadata = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["lit_pi", "rope"])
    sections = {
        "": f"A language model for contexts of {exported.target_context:,} tokens, exported by lit_pi {__version__}.",
        "Positions": _positions(exported),
        "Training": _training(exported.origin),
        "Evaluation": _evaluation(exported),
        "Use": _use(name, exported),
        "Verification": _verification(verified),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections.items())
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n# {name}\n\n{body}\n"))


def _positions(exported: Exported) -> str:
    rope = exported.rope
    return _table(
        ("", ""),
        [
            ("strategy", f"`{described(exported.position)}`"),
            ("context of pre-training", f"{rope.original_context:,} tokens, rope_theta {_thetas(rope)}"),
            ("context the model is for", f"{exported.target_context:,} tokens"),
            ("in `config.json`", _rope_types(exported.rope_parameters)),
            ("weights", exported.dtype),
        ],
    )


def _thetas(rope: Rope) -> str:
    """The base, or that of each kind of layer."""
    if not rope.kinds:
        return f"{rope.rope_theta:g}"
    return ", ".join(f"{each.rope_theta:g} ({kind})" for kind, each in rope.kinds)


def _rope_types(rope_parameters: dict[str, Any]) -> str:
    """The `rope_type`, or that of each kind of layer."""
    return ", ".join(f"rope_type `{name}`{kind and f' ({kind})'}" for kind, name in rope_types(rope_parameters).items())


def _training(origin: Origin | None) -> str:
    if origin is None:
        return "The model was written from memory; what trained it is not known here."
    if origin.step is None:
        how = "dequantised" if is_gguf(Path(origin.path)) else "unchanged"
        return f"The weights are those of `{origin.path}`, {how}."
    fit = origin.fit
    if not fit:
        return f"{origin.step:,} steps; the run's configuration was not there when the model was exported."
    data, source = fit["data"], fit["model"]["llm"]
    arguments = source.get("init_args") or {}
    base = arguments.get("path") or f"random weights ({arguments.get('size') or 'a config of its own'})"
    corpus = data["train"]["class_path"].rpartition(".")[2] if data.get("train") else "unknown"
    return _table(
        ("", ""),
        [
            ("base model", f"`{base}`"),
            ("data", f"{corpus}, tokenizer `{origin.tokenizer['name']}`"),
            ("steps", f"{origin.step:,}"),
            ("sequences", f"{data['context_length']:,} tokens, {data['packing']}"),
        ],
    ) + _history(origin.history)


def _history(trainings: list[dict[str, Any]]) -> str:
    """Every training that the weights went through, the last one last."""
    if not trainings:
        return ""
    rows = [
        (
            f"`{described(each['position'])}`", "all weights" if each["adapter"] is None else "an adapter",
            f"{each['steps']:,}", f"{each['tokens']:,}", f"{each['learning_rate']:g}", str(each.get("seed", "")),
        )
        for each in trainings
    ]  # fmt: skip
    header = ("trained under", "trained", "steps", "tokens", "learning rate", "seed")
    return "\n\n" + _table(header, rows)


def _evaluation(exported: Exported) -> str:
    if exported.origin is None:
        return "Nothing was measured where the model was written."
    parts = map(_measured, exported.origin.results(exported.position))
    return "\n\n".join(parts) or "The run has no result of this model with this strategy."


def _measured(record: dict[str, Any]) -> str:
    """Say what one evaluation found.

    Raises:
        UserError: a stranger's record lacks it.
    """
    try:
        partial = ", of a part of the batches" if record["partial"] else ""
        if record["kind"] != "perplexity_curve":
            found = f"{record['evaluation']} ({record['kind']}{partial})"
            return f"`results.json` of the run has {in_markdown(found)}."
        rows = [
            (f"{point['context_length']:,}", f"{point['perplexity']:.3f}", f"{point['tokens']:,}")
            for point in record["curve"]
        ]
        known = record["protocol"].get("reproduces")
        named = "" if known is None else f", protocol {known['name']}"
    except KeyError as error:
        evaluation = shown(record["evaluation"])
        raise UserError(f"the run's results of {evaluation} lack {error}: test again, or remove them") from error
    header = ("context length (tokens)", "perplexity", "tokens scored")
    return f"Perplexity on {in_markdown(record['evaluation'])}{named}{partial}:\n\n{_table(header, rows)}"


def _use(name: str, exported: Exported) -> str:
    lines = [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        f'model = AutoModelForCausalLM.from_pretrained("{name}")',
        "```",
        "",
        "With vLLM say how long the context is, which it would otherwise derive by a rule of its own:",
        "",
        f"```console\n$ vllm serve {name} --max-model-len {exported.target_context}\n```",
    ]
    for kind, warning in _WARNINGS.items():
        if kind in rope_types(exported.rope_parameters).values():
            lines += ["", warning]
    return "\n".join(lines)


_WARNINGS = {
    "dynamic": "The angles follow the length of the sequence. Generation with a cache keeps keys of shorter lengths, "
    "so that it is not quite a full forward pass; vLLM takes the angles of one length throughout.",
    "yarn": "Versions of vLLM differ in whether they read `attention_factor`; where it is not 0.1 ln(factor) + 1, "
    "compare with transformers first.",
    "longrope": "`short_mscale` and `long_mscale` are what vLLM calls the attention factor; transformers says that it "
    "does not know them, and reads `attention_factor`.",
}
"""Notes for readers of a rope type, by type."""


def _verification(verified: Verified) -> str:
    lengths = ", ".join(f"{length:,}" for length in verified.context_lengths)
    return (
        f"Stock transformers {transformers.__version__} with PyTorch {torch.__version__}, in a process without lit_pi, "
        f"computed the same as lit_pi at the ends of contexts of {lengths} tokens: logits differ by at most "
        f"{verified.difference:.1g} of the largest in float32, and {verified.tolerance:g} is allowed. "
        f"`lit-pi export --check DIRECTORY` compares again, with the numbers in `verification.npz` "
        f"and the checksums in `{SEAL}`."
    )


def described(position: dict[str, Any]) -> str:
    """A strategy's description as a call, without what is not given."""
    arguments = [
        f"{key}{'=' if 'class' in position else ': '}{described(value) if isinstance(value, dict) else value}"
        for key, value in position.items()
        if key != "class" and value is not None
    ]
    return f"{position['class']}({', '.join(arguments)})" if "class" in position else f"{{{', '.join(arguments)}}}"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(in_markdown, line))} |" for line in lines)
