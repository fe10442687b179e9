"""Documents on their way into a token store and out of it: hashed, cut, encoded and checked; and which two share."""
