"""One training step, and many at once."""
