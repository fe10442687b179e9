"""Hugging Face models, their rotary embedding, their attention and their loss."""

from lit_pi.models.language_model import LanguageModel
from lit_pi.models.sources.model_source import FromScratch, ModelSource, Pretrained
from lit_pi.models.training.lora import LoRA

__all__ = ["FromScratch", "LanguageModel", "LoRA", "ModelSource", "Pretrained"]
