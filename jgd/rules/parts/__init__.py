"""What several rules share: moments, weight decay, Nesterov's momentum, first values of slots."""
