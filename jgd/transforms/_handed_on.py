"""Combinators that optax has and that need no other form here: they take jgd's optimizers as they are."""

from optax import freeze as freeze
from optax import identity as identity
from optax import masked as masked
from optax import named_chain as named_chain
from optax import partition as partition
from optax import selective_transform as selective_transform
from optax import set_to_zero as set_to_zero
