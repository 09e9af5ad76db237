"""jgd: gradient descent for JAX.

Pure update rules, compiled into one step, over plain pytrees. Optimizers speak optax's protocol; their hyperparameters
are data.

>>> import jax, jax.numpy as jnp, jgd
>>> optimizer = jgd.adam(0.1)
>>> params = jnp.array([5.0])
>>> state = optimizer.init(params)
>>> for _ in range(200):
...     grads = jax.grad(lambda w: jnp.sum((w - 2.0) ** 2))(params)
...     updates, state = optimizer.update(grads, state, params)
...     params = jgd.apply_updates(params, updates)
>>> print(params.round(2))
[2.]
"""

from jgd.core import Optimizer as Optimizer
from jgd.core import OptState as OptState
from jgd.core import apply_updates as apply_updates
from jgd.core import get_hyperparams as get_hyperparams
from jgd.core import global_norm as global_norm
from jgd.core import set_hyperparams as set_hyperparams
from jgd.rules import MuonDimensionNumbers as MuonDimensionNumbers
from jgd.rules import adam as adam
from jgd.rules import adamw as adamw
from jgd.rules import amsgrad as amsgrad
from jgd.rules import gradient_descent as gradient_descent
from jgd.rules import lion as lion
from jgd.rules import muon as muon
from jgd.rules import nadam as nadam
from jgd.rules import nadamw as nadamw
from jgd.rules import sgd as sgd
from jgd.train import History as History
from jgd.train import NonFiniteError as NonFiniteError
from jgd.train import TrainState as TrainState
from jgd.train import fit as fit
from jgd.train import make_step as make_step
from jgd.train import restore_checkpoint as restore_checkpoint
from jgd.train import save_checkpoint as save_checkpoint
from jgd.train import scan_steps as scan_steps
from jgd.transforms import add_decayed_weights as add_decayed_weights
from jgd.transforms import chain as chain
from jgd.transforms import clip_by_global_norm as clip_by_global_norm
from jgd.transforms import scale_by_learning_rate as scale_by_learning_rate

__version__ = "0.1.0"
