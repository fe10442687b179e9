"""The functions that `import lit_pi` gives a notebook or a script: models in memory, extended, measured, continued and saved."""
