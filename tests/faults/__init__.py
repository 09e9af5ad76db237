"""Planted faults, and what finds them: `python tests/faults/plant.py`."""
