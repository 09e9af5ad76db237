"""Searches along a line."""
