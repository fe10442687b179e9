"""Who may attend to whom, and what computes it."""
