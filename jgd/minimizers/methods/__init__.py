"""Methods without constraints."""
