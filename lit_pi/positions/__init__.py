"""Position strategies."""
