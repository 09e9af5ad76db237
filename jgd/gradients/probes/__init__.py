"""Exact norms of per-example gradients, without per-example gradients: operations that take a probe.

A loss is written with these operations and hands them its `probe`. With `probe=None` each is the plain operation, so
the same code trains as ever; with a probe `norms`, `clipped_grad` and `weighted_grad` see what they need in one
backward pass.

>>> import jax.numpy as jnp
>>> from jgd.gradients import probes
>>> def losses_fn(params, batch, probe):
...     hidden = jnp.tanh(probes.bias(probes.dense(batch["x"], params["w"], probe), params["b"], probe))
...     return jnp.sum((hidden - batch["y"]) ** 2, axis=1)
>>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
>>> batch = {"x": jnp.array([[0.0, 0.0], [0.5, 0.0]]), "y": jnp.ones((2, 3))}
>>> losses, squared_norms = probes.norms(losses_fn)(params, batch)
>>> print(squared_norms.round(1))
[12.   2.7]
"""

from jgd.gradients.probes._check import PerExampleCheckError as PerExampleCheckError
from jgd.gradients.probes._check import PerExampleReport as PerExampleReport
from jgd.gradients.probes._check import check_per_example as check_per_example
from jgd.gradients.probes._conv import conv as conv
from jgd.gradients.probes._dense import dense as dense
from jgd.gradients.probes._direction import dot_with_mean as dot_with_mean
from jgd.gradients.probes._each import each as each
from jgd.gradients.probes._embed import embed as embed
from jgd.gradients.probes._norms import clipped_grad as clipped_grad
from jgd.gradients.probes._norms import clipped_value_and_grad as clipped_value_and_grad
from jgd.gradients.probes._norms import norms as norms
from jgd.gradients.probes._norms import weighted_grad as weighted_grad
from jgd.gradients.probes._recorder import Probe as Probe
from jgd.gradients.probes._scale import bias as bias
from jgd.gradients.probes._scale import scale as scale
