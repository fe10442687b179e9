"""Tiny configs of the causal language models of transformers, each with what lit_pi is to make of it."""

from typing import Any, NamedTuple

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

BASE: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


class Case(NamedTuple):
    """A config, and what is expected of it.

    Attributes:
        family: transformers' `model_type`.
        fields: of its config, beside those of `BASE`.
        expected: `exact` or `refused`.
    """

    family: str
    fields: dict[str, Any]
    expected: str = "exact"

    @property
    def known(self) -> bool:
        """Whether this version of transformers has it."""
        return self.family in CONFIG_MAPPING

    @property
    def window(self) -> str | None:
        """The field that says how far some layers see, which is 16 tokens; None where all see everything."""
        if not self.fields.get("use_sliding_window", True):
            return None
        names = ("sliding_window", "attention_chunk_size", "attention_window_size")
        return next((name for name in names if self.fields.get(name)), None)

    def config(self, **changes: Any) -> PreTrainedConfig:
        """The config as transformers makes it, with some of its fields changed."""
        return AutoConfig.for_model(self.family, **{**BASE, **self.fields, **changes})


def stock_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Stock transformers' model, with weights so large that what is left out shows."""
    torch.manual_seed(0)
    stock = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in stock.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.15)
        else:  # norms, biases, sinks
            parameter.data += torch.randn_like(parameter) * 0.15
    return stock


def scaled(kind: str, factor: float | None = 4.0, **fields: Any) -> dict[str, Any]:
    """Fields of a config whose rotary embedding is extended, from 16 tokens where nothing else is said."""
    said = {"rope_type": kind, "rope_theta": 10_000.0, "factor": factor, "original_max_position_embeddings": 16}
    return {"rope_parameters": {name: value for name, value in {**said, **fields}.items() if value is not None}}


def by_layer(full: dict[str, Any], sliding: dict[str, Any]) -> dict[str, Any]:
    """Fields of a config with a rotary embedding for each kind of layer."""
    return {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}


WINDOW = {"sliding_window": 16}
HALF = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
HEADS = {"head_dim": 16}
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "num_key_value_heads": 4,
}  # fmt: skip
DEEPSEEK = {**LATENT, **EXPERTS, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16}
DELTA = {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
NO_DROPOUT = {
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "dropout": 0.0, "attention_dropout": 0.0,
    "residual_dropout": 0.0,
}  # fmt: skip
TABLE = {"max_position_embeddings": 128}  # of positions, beyond which stock fails
DEFAULT = {"rope_type": "default", "rope_theta": 10_000.0}
FAR = scaled("yarn", rope_theta=500_000.0)["rope_parameters"]
BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
SHORT, LONG = [1.0 + 0.1 * j for j in range(8)], [1.5 + 0.5 * j for j in range(8)]
FACTORS = {"short_factor": SHORT, "long_factor": LONG}
PHI3 = {"original_max_position_embeddings": 16, "rope_parameters": {"rope_type": "longrope", **FACTORS}}
HALF_FACTORS = {"rope_type": "longrope", "short_factor": SHORT[:4], "long_factor": LONG[:4]}
LAST_WINDOWS = {**WINDOW, "use_sliding_window": True, "max_window_layers": 2}
GRANITE = {
    "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.1,
}  # fmt: skip

# fmt: off
CASES: dict[str, Case] = {
    "LLaMA": Case("llama", {}),
    "LLaMA, tied embeddings": Case("llama", {"tie_word_embeddings": True}),
    "LLaMA, attention_bias": Case("llama", {"attention_bias": True, "mlp_bias": True}),
    "LLaMA, partial_rotary_factor": Case("llama", {"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.5}}),
    "LLaMA, linear": Case("llama", scaled("linear")),
    "LLaMA, linear without original_max_position_embeddings": Case(
        "llama", scaled("linear", original_max_position_embeddings=None)),
    "LLaMA, dynamic": Case("llama", scaled("dynamic", original_max_position_embeddings=None)),
    "LLaMA, dynamic with original_max_position_embeddings": Case("llama", scaled("dynamic")),
    "LLaMA, yarn": Case("llama", scaled("yarn")),
    "LLaMA, yarn with truncate false": Case(
        "llama", scaled("yarn", truncate=False, beta_fast=4.0, beta_slow=0.5)),
    "LLaMA, yarn with mscale": Case("llama", scaled("yarn", mscale=1.0, mscale_all_dim=0.5)),
    "LLaMA, yarn with attention_factor": Case("llama", scaled("yarn", attention_factor=1.3)),
    "LLaMA, llama3": Case("llama", scaled("llama3", **BANDS)),
    "LLaMA, longrope": Case("llama", scaled("longrope", **FACTORS)),
    "LLaMA, longrope without factor": Case("llama", scaled("longrope", None, **FACTORS)),
    "LLaMA, proportional": Case("llama", {**HEADS, **scaled("proportional", None, partial_rotary_factor=0.5)}),
    "Mistral": Case("mistral", {"sliding_window": None}),
    "Mistral, sliding_window": Case("mistral", WINDOW),
    "Mistral, sliding_window and yarn": Case("mistral", {**WINDOW, **scaled("yarn")}),
    "Ministral": Case("ministral", {**HEADS, **HALF}),
    "Ministral 3": Case("ministral3", {
        **HEADS, **scaled("yarn", llama_4_scaling_beta=0.5, mscale=1.0, mscale_all_dim=1.0)}),
    "Ministral 3, sliding_window": Case(
        "ministral3", {**HEADS, **WINDOW, **scaled("yarn", llama_4_scaling_beta=0.5)}),
    "Mixtral": Case("mixtral", {**EXPERTS, "sliding_window": None}),
    "Mixtral, sliding_window": Case("mixtral", {**EXPERTS, **WINDOW}),
    "Qwen2": Case("qwen2", {}),
    "Qwen2, max_window_layers": Case("qwen2", LAST_WINDOWS),
    "Qwen2, use_sliding_window false": Case("qwen2", {**LAST_WINDOWS, "use_sliding_window": False}),
    "Qwen2-MoE": Case("qwen2_moe", EXPERTS),
    "Qwen3": Case("qwen3", HEADS),
    "Qwen3, max_window_layers": Case("qwen3", {**HEADS, **LAST_WINDOWS}),
    "Qwen3-MoE": Case("qwen3_moe", {**HEADS, **EXPERTS}),
    "Qwen3-Next": Case("qwen3_next", {**HEADS, **EXPERTS, **DELTA}, "refused"),
    "Qwen3.5": Case("qwen3_5_text", {**HEADS, **DELTA}, "refused"),
    "Phi": Case("phi", {}),
    "Phi-3": Case("phi3", {}),
    "Phi-3, sliding_window": Case("phi3", WINDOW),
    "Phi-3, partial_rotary_factor": Case("phi3", {"partial_rotary_factor": 0.5}),
    "Phi-3, longrope": Case("phi3", PHI3),
    "Phi-3, longrope and partial_rotary_factor": Case(
        "phi3", {**PHI3, "partial_rotary_factor": 0.5, "rope_parameters": HALF_FACTORS}),
    "Phi-3.5-MoE": Case("phimoe", EXPERTS),
    "Phi-3.5-MoE, longrope": Case(
        "phimoe", {**EXPERTS, **scaled("longrope", **FACTORS, short_mscale=1.2, long_mscale=1.4)}, "refused"),
    "Gemma": Case("gemma", HEADS),
    "Gemma 2": Case("gemma2", {**HEADS, **WINDOW}),
    "Gemma 3": Case("gemma3_text", {**HEADS, **HALF}),
    "Gemma 3, sliding_window in every layer": Case("gemma3_text", {**HEADS, **WINDOW}),
    "Gemma 3, linear in full_attention": Case("gemma3_text", {
        **HEADS, **HALF, **by_layer(scaled("linear", 8.0, rope_theta=1e6)["rope_parameters"], DEFAULT)}),
    "Gemma 3, linear without original_max_position_embeddings": Case("gemma3_text", {
        **HEADS, **HALF, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "Gemma 4": Case("gemma4_text", {**HEADS, **HALF, "hidden_size_per_layer_input": 0}, "refused"),
    "VaultGemma": Case("vaultgemma", {**HEADS, **WINDOW}),
    "OLMo": Case("olmo", {"clip_qkv": 0.5}),
    "OLMo 2": Case("olmo2", {}),
    "OLMo 3": Case("olmo3", WINDOW),
    "OLMo 3, yarn in full_attention": Case("olmo3", {**HALF, **by_layer(FAR, DEFAULT)}),
    "OLMo 3, dynamic in full_attention": Case("olmo3", {
        **HALF, **by_layer(scaled("dynamic")["rope_parameters"], DEFAULT)}),
    "OLMoE": Case("olmoe", EXPERTS),
    "FlexOlmo": Case("flex_olmo", EXPERTS),
    "SmolLM3": Case("smollm3", {}),
    "SmolLM3, sliding_window": Case("smollm3", {**HALF, "use_sliding_window": True}),
    "Cohere": Case("cohere", {"logit_scale": 0.5}),
    "Cohere, use_qk_norm": Case("cohere", {"use_qk_norm": True, "logit_scale": 1.0}),
    "Cohere 2": Case("cohere2", {**WINDOW, "logit_scale": 0.5}),
    "GLM": Case("glm", HEADS),
    "GLM-4": Case("glm4", HEADS),
    "GLM-4.5": Case("glm4_moe", {**HEADS, **EXPERTS}),
    "GLM-4.7-Flash": Case("glm4_moe_lite", DEEPSEEK),
    "Granite": Case("granite", GRANITE),
    "Granite-MoE": Case("granitemoe", {**GRANITE, **EXPERTS}),
    "Granite-MoE, shared expert": Case("granitemoeshared", {**GRANITE, **EXPERTS, "shared_intermediate_size": 32}),
    "Granite-SWA": Case("granite_swa", {**GRANITE, **WINDOW}, "refused"),
    "Granite-SWA, layer_rope_theta": Case(
        "granite_swa", {**WINDOW, "layer_rope_theta": [500_000.0, 10_000.0, 0, 10_000.0]}, "refused"),
    "GPT-OSS": Case("gpt_oss", {**HEADS, **EXPERTS, **HALF}),
    "Llama 4": Case("llama4_text", {
        **HEADS, **EXPERTS, "intermediate_size_mlp": 96, "attention_chunk_size": 16, "floor_scale": 8,
        "attn_scale": 0.5}, "refused"),
    "DeepSeek-V2": Case("deepseek_v2", DEEPSEEK),
    "DeepSeek-V3": Case("deepseek_v3", DEEPSEEK),
    "DeepSeek-V3, yarn": Case("deepseek_v3", {**DEEPSEEK, **scaled("yarn", mscale=1.0, mscale_all_dim=1.0)}),
    "MiniCPM3": Case("minicpm3", LATENT, "refused"),
    "Youtu": Case("youtu", LATENT),
    "StableLM": Case("stablelm", {"use_qkv_bias": True, "qk_layernorm": True}),
    "StarCoder2": Case("starcoder2", {"sliding_window": None}),
    "StarCoder2, sliding_window": Case("starcoder2", WINDOW),
    "EXAONE 4": Case("exaone4", WINDOW),
    "EXAONE-MoE": Case("exaone_moe", {**HEADS, **EXPERTS, **WINDOW}),
    "Helium": Case("helium", HEADS),
    "Nemotron": Case("nemotron", {}),
    "Persimmon": Case("persimmon", {}),
    "GPT-NeoX": Case("gpt_neox", {}),
    "Seed-OSS": Case("seed_oss", {**HEADS, **NO_DROPOUT}),
    "Arcee": Case("arcee", {}),
    "Apertus": Case("apertus", scaled("llama3", **BANDS)),
    "HunYuan": Case("hunyuan_v1_dense", HEADS),
    "HunYuan, dynamic with alpha": Case(
        "hunyuan_v1_dense", {**HEADS, **scaled("dynamic", 1.0, alpha=1000.0)}, "refused"),
    "HunYuan 3": Case("hy_v3", {**HEADS, **EXPERTS}),
    "ERNIE 4.5": Case("ernie4_5", HEADS),
    "dots.llm1": Case("dots1", {**HEADS, **EXPERTS, **HALF, "first_k_dense_replace": 1}),
    "Laguna": Case("laguna", {
        **HEADS, **EXPERTS, **HALF, **by_layer({**FAR, "partial_rotary_factor": 0.5}, DEFAULT)}),
    "MiMo-V2-Flash": Case("mimo_v2_flash", {**HEADS, **EXPERTS, **HALF, "v_head_dim": 12}, "refused"),
    "Mellum": Case("mellum", {**HEADS, **EXPERTS, **HALF}),
    "CWM": Case("cwm", {**HEADS, **WINDOW, **scaled("llama3", **BANDS)}),
    "Trinity": Case("afmoe", {**HEADS, **EXPERTS, **WINDOW}),
    "Flint": Case("flint", {**HEADS, **EXPERTS, **HALF}),
    "Kolibri": Case("kolibri1", {**HEADS, **EXPERTS, **HALF}),
    "BitNet": Case("bitnet", {}),
    "DiffLlama": Case("diffllama", {}),
    "InternLM3": Case("internlm3", HEADS),
    "IQuest-Coder": Case("iquestcoder", HEADS),
    "Jais 2": Case("jais2", {}),
    "HyperCLOVA X": Case("hyperclovax", {**HEADS, "attention_multiplier": 0.1, "logits_scaling": 2.0}),
    "NanoChat": Case("nanochat", {}),
    "MiniMax-M2": Case("minimax_m2", {**HEADS, **EXPERTS}),
    "ModernBERT decoder": Case("modernbert-decoder", HALF, "refused"),
    "Falcon": Case("falcon", {}, "refused"),
    "GPT-J": Case("gptj", {"rotary_dim": 8, **TABLE}, "refused"),
    "CodeGen": Case("codegen", {"rotary_dim": 8, **TABLE}, "refused"),
    "GPT-2": Case("gpt2", {**TABLE, **NO_DROPOUT}, "refused"),
    "OPT": Case("opt", {**TABLE, "ffn_dim": 96, "word_embed_proj_dim": 64, **NO_DROPOUT},
        "refused"),
    "BLOOM": Case("bloom", {}, "refused"),
    "MPT": Case("mpt", {**TABLE, "d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 128}, "refused"),
    "Mamba": Case("mamba", {}, "refused"),
    "Jamba": Case("jamba", {**EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1}, "refused"),
    "Falcon-H1": Case("falcon_h1", {**HEADS, **MAMBA, "mamba_d_ssm": 128}, "refused"),
    "Bamba": Case("bamba", {**MAMBA, "attn_layer_indices": [1, 3]}, "refused"),
    "RecurrentGemma": Case("recurrent_gemma", {**HEADS, "attention_window_size": 16, "lru_width": 64}, "refused"),
    "LFM2": Case("lfm2", {"layer_types": ["conv", "full_attention"] * 2}, "refused"),
    "LFM3": Case("lfm3", {**HEADS, **WINDOW, "layer_types": ["conv", "full_attention", "sliding_attention", "conv"]},
        "refused"),
}
# fmt: on
"""By name: the family's, and what is special about the config after a comma."""
