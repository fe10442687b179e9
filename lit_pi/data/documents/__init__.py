"""Documents on their way into a token store: hashed, cut and encoded; and whether two stores share some."""
