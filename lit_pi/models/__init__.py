"""Hugging Face models, their rotary embedding, their attention and their loss."""

from lit_pi.models.language_model import LanguageModel
from lit_pi.models.lora import LoRA
from lit_pi.models.sources import FromScratch, ModelSource, Pretrained

__all__ = ["FromScratch", "LanguageModel", "LoRA", "ModelSource", "Pretrained"]
