"""Documents, token stores, training sequences and evaluation windows."""
