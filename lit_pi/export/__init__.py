"""Extended models as Hugging Face directories, which stock transformers loads and has been seen to compute alike."""

from lit_pi.export.command import export
from lit_pi.export.directory import write_model

__all__ = ["export", "write_model"]
