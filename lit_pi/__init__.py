"""lit_pi: extend the context window of LLaMA-family models, and prove what was gained."""

__version__ = "0.1.0"
