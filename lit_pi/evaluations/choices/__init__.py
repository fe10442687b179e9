"""Questions with options, answered by likelihood."""
