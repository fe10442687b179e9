"""Models in files of llama.cpp."""
