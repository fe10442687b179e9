"""Pictures drawn with matplotlib, in one style; nothing else of the evaluations imports it."""
