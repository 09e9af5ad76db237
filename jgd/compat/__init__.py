"""Converters: `optax` lifts optax's factories and converts its states, `torch` converts `torch.optim`'s."""

from jgd.compat import optax as optax
from jgd.compat import torch as torch
