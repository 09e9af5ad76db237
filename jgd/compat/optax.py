"""optax, both ways: its factories with hyperparameters as data, and its states as jgd's.

>>> import jgd, optax
>>> from jgd.compat.optax import lift
>>> lift(optax.adabelief, 1e-3)
jgd.compat.optax.lift(adabelief, learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16)
"""

from jgd.compat._lifted import LiftedState as LiftedState
from jgd.compat._lifted import lift as lift
from jgd.compat._optax_states import from_optax_state as from_optax_state
from jgd.compat._optax_states import to_optax_state as to_optax_state
