"""How the command line reads what a person types, and how it says what is wrong with it."""
