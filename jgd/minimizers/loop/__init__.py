"""The loop: when to stop, what is returned, derivatives of solutions."""
