"""Loaders, and the position in the data."""
