r"""How noisy gradients are, and how large a batch is worth its price.

With the true gradient $G$ and the covariance $\Sigma$ of the gradients of single examples, the mean gradient of $b$
examples has

$$
\mathbb E \lVert g_b \rVert^2 = \lVert G \rVert^2 + \frac{\operatorname{tr} \Sigma}{b}
$$

so that squared norms at two batch sizes give both, without bias:

$$
\lVert G \rVert^2 \approx \frac{B \lVert g_B \rVert^2 - b \lVert g_b \rVert^2}{B - b}, \qquad
\operatorname{tr} \Sigma \approx \frac{\lVert g_b \rVert^2 - \lVert g_B \rVert^2}{1/b - 1/B}, \qquad
B_\text{simple} = \frac{\operatorname{tr} \Sigma}{\lVert G \rVert^2}
$$

References:
    - McCandlish, Kaplan, Amodei et al., "An Empirical Model of Large-Batch Training",
      https://arxiv.org/abs/1812.06162, 2018, section 2 and appendix A.1.
    - Liu, Bai, Jiang, Chen and Wang, "Understanding Why Neural Networks Generalize Well Through GSNR of Parameters",
      https://arxiv.org/abs/2001.07384, 2020 (`gradient_snr`).
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, ArrayTree, PyTree, Reals, abs_sq, check_same_tree, checked, is_traced


class NoiseScale(NamedTuple):
    """The simple noise scale, and the two numbers that it is the ratio of.

    Attributes:
        scale: tr Sigma / |G|^2, in examples. NaN while |G|^2 is not estimated above zero: the noise drowns it.
        trace: tr Sigma, the summed variance of the gradient of one example.
        squared_norm: |G|^2.
    """

    scale: Array
    trace: Array
    squared_norm: Array


@checked
def noise_scale(
    small_squared_norm: Reals, big_squared_norm: Reals, small_batch: Reals, big_batch: Reals, *, decay: float = 0.99
) -> NoiseScale:
    """The gradient noise scale from the squared norms of gradients at two batch sizes.

    A ratio of two noisy numbers is biased, and so is an average of such ratios: numerator and denominator are
    averaged over steps first.

    Args:
        small_squared_norm: The mean of the squared norms of gradients of `small_batch` examples each: of the parts of
            an accumulated batch, or of single examples. A number, or an array `[steps]` of a run's history. Steps where
            it is not finite are passed over.
        big_squared_norm: The squared norm of the gradient of `big_batch` examples, those of the parts together.
        small_batch: Examples in a part; 1 for per-example norms. A number, or one for each step.
        big_batch: Examples in all, above `small_batch`; with padding the real count.
        decay: What the averages keep from step to step, from 0 (no average) to below 1.

    Returns:
        Scalars or arrays `[steps]`: at each step the estimate from all steps up to it.

    Raises:
        ValueError: `decay` is not in [0, 1), or `big_batch` not above `small_batch`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import noise_scale
        >>> grads = jnp.array([[3.0, 1.0], [1.0, -1.0]])  # two examples
        >>> mean = grads.mean(0)
        >>> found = noise_scale(jnp.mean(jnp.sum(grads**2, 1)), jnp.sum(mean**2), 1, 2)
        >>> print(found.trace, found.squared_norm, found.scale.round(3))
        4.0 2.0 2.0
    """
    if not 0 <= decay < 1:
        raise ValueError(f"noise_scale: decay must be in [0, 1); got {decay!r}.")
    small, big = jnp.asarray(small_batch, jnp.result_type(float)), jnp.asarray(big_batch, jnp.result_type(float))
    if not is_traced(small) and not is_traced(big) and bool(jnp.any(big <= small)):
        raise ValueError(f"noise_scale: big_batch must be above small_batch; got {big_batch!r} and {small_batch!r}.")
    small_square, big_square = jnp.asarray(small_squared_norm), jnp.asarray(big_squared_norm)
    trace = (small_square - big_square) / (1 / small - 1 / big)
    squared_norm = (big * big_square - small * small_square) / (big - small)
    if jnp.ndim(trace):
        trace, squared_norm = _averaged(trace, squared_norm, decay)
    return NoiseScale(_ratio(trace, squared_norm), trace, squared_norm)


@checked
def per_example_noise_scale(norms: Reals, mean_norm: Reals, used: ArrayLike | None = None) -> NoiseScale:
    """The noise scale of one batch from the norms of its examples' gradients.

    Args:
        norms: The norm of each example's gradient, `[B]`.
        mean_norm: The norm of the mean of these gradients.
        used: bool `[B]`, which examples count; all unless given.

    Returns:
        Scalars. One batch's |G|^2 is noisy; for a run keep `trace` and `squared_norm` of each step, and divide their
        averages.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import per_example_noise_scale
        >>> print(per_example_noise_scale(jnp.sqrt(jnp.array([10.0, 2.0])), 2.0).trace.round(3))
        4.0
    """
    shape = jnp.shape(norms)
    if len(shape) != 1 or jnp.shape(mean_norm) or (used is not None and jnp.shape(used) != shape):
        raise ValueError(
            f"per_example_noise_scale: norms have shape {shape}, mean_norm {jnp.shape(mean_norm)} and used"
            f" {shape if used is None else jnp.shape(used)}; expected (B,), () and (B,)."
        )
    used = jnp.ones(shape, bool) if used is None else used
    count = jnp.sum(used)
    mean = jnp.sum(jnp.where(used, jnp.square(norms), 0)) / count
    trace = (mean - jnp.square(mean_norm)) * count / (count - 1)
    squared_norm = mean - trace
    return NoiseScale(_ratio(trace, squared_norm), trace, squared_norm)


class CriticalBatch(NamedTuple):
    """The critical batch size, and what no batch size goes below.

    Attributes:
        size: The batch size at which a run takes twice the fewest steps and twice the fewest examples.
        min_steps: The steps that no batch size goes below.
        min_examples: The examples that no batch size goes below.
    """

    size: Array
    min_steps: Array
    min_examples: Array


@checked
def critical_batch_size(batch_sizes: Reals, steps: Reals) -> CriticalBatch:
    r"""The critical batch size from how many steps runs took to the same loss.

    Fits $(S / S_\text{min} - 1)(E / E_\text{min} - 1) = 1$ with $E = B S$, which is linear in the two unknowns:
    $S_\text{min} / S + E_\text{min} / E = 1$. The critical size is $E_\text{min} / S_\text{min}$. Where there is a
    single run, `noise_scale` estimates it from the gradients alone.

    Args:
        batch_sizes: `[runs]`, at least two different ones.
        steps: `[runs]`, the steps that each took to reach the goal.

    Returns:
        Scalars.

    Raises:
        ValueError: The two differ in shape, or there are fewer than two runs.

    Examples:
        >>> from jgd.gradients import critical_batch_size
        >>> found = critical_batch_size([10, 100, 1000], [1100, 200, 110])
        >>> print(found.size.round(1), found.min_steps.round(1))
        100.0 100.0
    """
    sizes, steps = jnp.asarray(batch_sizes, float), jnp.asarray(steps, float)
    if sizes.shape != steps.shape or sizes.ndim != 1 or len(sizes) < 2:
        raise ValueError(
            f"critical_batch_size: expected two arrays [runs] of at least 2 runs; got {sizes.shape} and {steps.shape}."
        )
    # Both columns scaled to about one: the examples outnumber the steps by far.
    step_unit, example_unit = jnp.min(steps), jnp.min(sizes * steps)
    columns = jnp.stack([step_unit / steps, example_unit / (sizes * steps)], axis=1)
    fewest = jnp.linalg.lstsq(columns, jnp.ones(len(sizes)))[0] * jnp.stack([step_unit, example_unit])
    return CriticalBatch(fewest[1] / fewest[0], fewest[0], fewest[1])


@checked
def gradient_snr(mean: ArrayTree, variance: ArrayTree, *, per: Literal["entry", "leaf"] = "entry") -> PyTree:
    r"""The gradient signal-to-noise ratio: the squared mean of the examples' gradients over their variance.

    Args:
        mean: The mean gradient, from the reduction `Mean()`.
        variance: Its entries' variances over the examples, from the reduction `Variance()`.
        per: `"entry"` for $\mu_j^2 / \sigma_j^2$ (Liu et al., 2020), a tree as the params; `"leaf"` for
            $\sum_j \mu_j^2 / \sum_j \sigma_j^2$, a tree of scalars. Times B it is the ratio for the mean of a batch.

    Returns:
        The ratios; infinite where there is no noise, NaN where there is no gradient either. The squared mean holds
        a part $\sigma^2 / B$ of the noise.

    Raises:
        ValueError: `per` is neither.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import gradient_snr
        >>> print(gradient_snr(jnp.array([1.0, 2.0]), jnp.array([4.0, 1.0])))
        [0.25 4.  ]
        >>> print(gradient_snr(jnp.array([1.0, 2.0]), jnp.array([4.0, 1.0]), per="leaf"))
        1.0
    """
    check_same_tree("gradient_snr", "mean", mean, "variance", variance)
    if per == "entry":
        return jax.tree.map(lambda m, v: abs_sq(m) / v, mean, variance)
    return jax.tree.map(lambda m, v: jnp.sum(abs_sq(m)) / jnp.sum(v), mean, variance)


def _averaged(trace: Array, squared_norm: Array, decay: float) -> tuple[Array, Array]:
    """Averages over the steps so far, recent ones weighing more, first ones debiased."""
    known = jnp.isfinite(trace) & jnp.isfinite(squared_norm)
    rows = jnp.stack([trace, squared_norm, jnp.ones_like(trace)], axis=-1)

    def step(average: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        row, is_known = item
        average = jnp.where(is_known, decay * average + (1 - decay) * row, average)
        return average, average

    _, averages = jax.lax.scan(step, jnp.zeros_like(rows[0]), (rows, known))
    return averages[..., 0] / averages[..., 2], averages[..., 1] / averages[..., 2]


def _ratio(trace: Array, squared_norm: Array) -> Array:
    above = squared_norm > 0
    return jnp.where(above, trace / jnp.where(above, squared_norm, 1), jnp.nan)
