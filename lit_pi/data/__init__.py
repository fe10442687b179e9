"""Documents, token stores and training sequences."""
