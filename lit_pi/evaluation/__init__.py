"""What is measured: window plans, metrics, results."""
