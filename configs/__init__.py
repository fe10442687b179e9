"""Presets, installed as `lit_pi.configs`: every file composes or runs, and its first line says how."""
