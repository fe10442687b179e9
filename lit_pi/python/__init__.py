"""Functions for notebooks and scripts: models in memory, extended, measured, continued and saved."""
