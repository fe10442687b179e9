"""Sharding over devices."""
