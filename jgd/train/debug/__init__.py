"""What made a step not finite."""
