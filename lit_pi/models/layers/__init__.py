"""How a decoder layer and the loss run."""
