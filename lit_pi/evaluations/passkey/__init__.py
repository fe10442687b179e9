"""Keys hidden in long texts."""
