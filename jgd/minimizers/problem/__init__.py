"""The problem that a method sees: a value of one vector."""
