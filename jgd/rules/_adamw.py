r"""AdamW: Adam whose weight decay does not pass through the second moment.

$$
\theta_t = \theta_{t-1} - \eta\, \bigl(\hat m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
           + \lambda\, \theta_{t-1}\bigr)
$$

with $\hat m$ and $\hat v$ of `jgd.adam`. The decay is multiplied by the learning rate, as in optax and
PyTorch; the paper multiplies it by the schedule alone. PyTorch's default for $\lambda$ is 0.01, optax's and ours
1e-4.

References:
    - Loshchilov and Hutter, "Decoupled weight decay regularization", https://arxiv.org/abs/1711.05101, 2017,
      Algorithm 2.
"""

from jgd.core import LayoutLike, Mask, Optimizer, ScalarOrSchedule, SlotDtype, StateDtype
from jgd.rules._adam import ADAM
from jgd.rules.parts._nesterov import NADAM
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam with decoupled weight decay.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        mask: Which leaves decay: a tree of booleans shaped like the params or a prefix of them, a function from params
            to such a tree, `"matrices"` for leaves of two axes and more, or None for all. Biases and the scales of
            norms are often left out.
        nesterov: Whether to use Nesterov momentum; `nadamw` is the same thing.
        decay_form: How the decay enters: `"scaled"` by the learning rate, `"independent"` of it, `"squared"`, `"after"`
            the step, `"proximal"`, or `"coupled"` into the gradient; see `jgd.rules.decayed`.

    Returns:
        An optimizer with the hyperparameters of `jgd.adam` and `weight_decay`, and its slots `mu`, `nu`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
        >>> optimizer = jgd.adamw(0.1, weight_decay=0.5, mask={"kernel": True, "bias": False})
        >>> grads = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates["kernel"].round(3), updates["bias"].round(3))
        [-0.15 -0.15] [-0.1 -0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift_decayed(
        NADAM if nesterov else ADAM,
        hyperparams,
        weight_decay,
        mask,
        decay_form,
        name="adamw",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
