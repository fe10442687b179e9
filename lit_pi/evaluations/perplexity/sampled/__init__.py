"""Windows that are drawn at random: which, against what they are held, and how many."""
