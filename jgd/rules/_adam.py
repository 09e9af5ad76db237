r"""Adam: steps of a size that does not depend on the gradient's scale.

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad \hat m_t = m_t / (1-\beta_1^t) \\
v_t &= \beta_2 v_{t-1} + (1-\beta_2)\, |g_t|^2, \qquad \hat v_t = v_t / (1-\beta_2^t) \\
\theta_t &= \theta_{t-1} - \eta\, \hat m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`nu`). For the Nesterov forms see `jgd.nadam`.

$\epsilon$ stands outside the root of the *corrected* $v$, as in the paper's Algorithm 1; TensorFlow adds it
to the uncorrected root.

References:
    - Kingma and Ba, "Adam: A method for stochastic optimization", https://arxiv.org/abs/1412.6980, 2014, Algorithm
      1.
"""

from jgd.core import Array, Hyper, LayoutLike, Optimizer, Rule, ScalarOrSchedule, SlotDtype, Slots, StateDtype, lift
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, denominator, moments
from jgd.rules.parts._nesterov import NADAM


def adam_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Kingma and Ba's Adam, on one leaf."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    mu_hat = hyper["mu_scale"] * mu
    return -mu_hat / denominator(nu, hyper), {"mu": mu, "nu": nu}


ADAM = Rule(adam_update, slots=MOMENT_SLOTS, prepare=adam_scales, nonnegative=("nu",))


def adam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: SlotDtype | None = "auto",
    *,
    nesterov: bool = False,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam: adaptive moment estimation.

    Every number may be a scalar array or a schedule as well. A gradient whose square overflows (above 1.8e19 in
    float32) makes the second moment infinite, and that parameter no longer moves: clip first, as with
    `jgd.chain(jgd.clip_by_global_norm(1.0), jgd.adam(0.1))`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of squared gradients, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        eps_root: Added under the root, at least 0; give a small value to differentiate through zero gradients.
        mu_dtype: The dtype of the slot `mu` where `state_dtype` is None: `"auto"` for float32, wider where the param is
            wider; None for the param's dtype, as in optax; or a dtype.
        nesterov: Whether to use Nesterov momentum; `nadam` is the same thing.
        state_dtype: The dtype of all slots, or how they are stored, see `jgd.core.lift`; None for float32, wider where
            the param is wider.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `eps_root`, and the slots
        `mu` and `nu`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adam(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(jnp.zeros(2)))
        >>> print(updates.round(3))
        [-0.1  0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift(
        NADAM if nesterov else ADAM,
        hyperparams,
        name="adam",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
