"""Hugging Face models, their rotary embedding and their loss."""
