"""Where weights come from: drawn at random, or read from disk."""
