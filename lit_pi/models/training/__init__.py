"""What training adds to a model: less memory, float8, adapters."""
