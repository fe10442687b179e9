"""A run directory: who owns it, how far its run came and how it ended, and what stops it."""
