"""Sums of squares of residuals."""
