"""What rules for matrices are made of: their axes, orthogonal factors, bases, preconditioners."""
