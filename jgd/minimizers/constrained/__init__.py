"""Bounds, sets, penalties, constraints."""
