"""Text continued token by token."""
