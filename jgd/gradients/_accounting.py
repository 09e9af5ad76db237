r"""The privacy loss of a run of private training, by `dp-accounting` (extra `private`).

A run is $(\varepsilon, \delta)$-private if adding or removing one example changes the probability of any outcome by at
most a factor $e^\varepsilon$, but for a probability $\delta$.

References:
    - Abadi et al., "Deep learning with differential privacy", https://arxiv.org/abs/1607.00133, 2016.
    - Koskela, Jälkö and Honkela, "Computing tight differential privacy guarantees using FFT",
      https://arxiv.org/abs/1906.03049, 2020: privacy loss distributions.
    - Mironov, Talwar and Zhang, "Rényi differential privacy of the sampled Gaussian mechanism",
      https://arxiv.org/abs/1908.10530, 2019.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import Any, Literal

from jgd.core import check_choice, checked, require

Accountant = Literal["pld", "rdp"]


@checked
def private_epsilon(
    noise_multiplier: float, sampling_rate: float, steps: int, *, delta: float, accountant: Accountant = "pld"
) -> float:
    """The epsilon of a run of `jgd.dp_sgd` on Poisson samples.

    Args:
        noise_multiplier: The deviation of the noise over the clipping norm, at least 0.
        sampling_rate: The probability with which an example is in a batch, in (0, 1]; `loader.sampling_rate` of a
            `jgd.PoissonLoader`. Shuffled batches of a fixed size are another mechanism, of which this says nothing.
        steps: How many steps are made, at least 0.
        delta: The probability left aside, in (0, 1); well below 1 / N for N examples.
        accountant: `"pld"`, privacy loss distributions, which is tight; or `"rdp"`, Rényi divergences, which is looser
            and quick.

    Returns:
        Epsilon, for the addition or removal of one example; infinite without noise.

    Raises:
        ValueError: A number is outside its range.
        ImportError: dp-accounting is not installed (extra `private`).

    Examples:
        >>> from jgd.gradients import private_epsilon
        >>> round(private_epsilon(1.0, 0.01, 1000, delta=1e-5), 2)
        1.83
    """
    owner = "private_epsilon"
    _check_run(owner, sampling_rate, steps, delta)
    check_choice(owner, "accountant", accountant, Accountant)
    if not 0 <= noise_multiplier < math.inf:
        raise ValueError(f"{owner}: noise_multiplier must be finite and at least 0; got {noise_multiplier!r}.")
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    with _quietly():
        account = _accountant(accountant)
        account.compose(_event(noise_multiplier, sampling_rate, steps))
        return float(account.get_epsilon(delta))


@checked
def private_noise(
    epsilon: float, sampling_rate: float, steps: int, *, delta: float, accountant: Accountant = "pld"
) -> float:
    """The noise multiplier with which a run of `jgd.dp_sgd` spends at most `epsilon`.

    Args:
        epsilon: What may be spent, above 0.
        sampling_rate: The probability with which an example is in a batch, in (0, 1].
        steps: How many steps are made, at least 1.
        delta: The probability left aside, in (0, 1).
        accountant: See `jgd.gradients.private_epsilon`.

    Returns:
        The smallest multiplier found to suffice, to three digits or so. With `"pld"` the search takes some seconds.

    Raises:
        ValueError: A number is outside its range.
        ImportError: dp-accounting is not installed (extra `private`).

    Examples:
        >>> from jgd.gradients import private_noise
        >>> round(private_noise(2.0, 0.01, 1000, delta=1e-5), 2)
        0.96
    """
    owner = "private_noise"
    _check_run(owner, sampling_rate, steps, delta)
    check_choice(owner, "accountant", accountant, Accountant)
    if not 0 < epsilon < math.inf:
        raise ValueError(f"{owner}: epsilon must be a finite number above 0; got {epsilon!r}.")
    if steps < 1:
        raise ValueError(f"{owner}: expected at least one step; got {steps}.")
    accounting = _accounting()

    def calibrated(accountant: Accountant, bracket: Any, tol: float) -> float:
        def event(noise: float) -> Any:
            return _event(noise, sampling_rate, steps)

        with _quietly():
            noise = accounting.calibrate_dp_mechanism(
                lambda: _accountant(accountant), event, epsilon, delta, bracket, tol=tol
            )
        return float(noise)

    enough = calibrated("rdp", accounting.LowerEndpointAndGuess(0.05, 1.0), 1e-3)
    if accountant == "rdp":
        return enough
    # Distributions take minutes where there is little noise, so that the search begins where the bound lies.
    return calibrated("pld", accounting.ExplicitBracketInterval(0.7 * enough, enough), 1e-3 * enough)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings for orders of Rényi divergence that are left out: each only loosens the bound."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _event(noise_multiplier: float, sampling_rate: float, steps: int) -> Any:
    accounting = _accounting()
    one_step = accounting.PoissonSampledDpEvent(sampling_rate, accounting.GaussianDpEvent(noise_multiplier))
    return accounting.SelfComposedDpEvent(one_step, steps)


def _accountant(name: Accountant) -> Any:
    where, what = ("dp_accounting.pld", "PLDAccountant") if name == "pld" else ("dp_accounting.rdp", "RdpAccountant")
    return getattr(require(where, "private", "privacy accounting"), what)()


def _accounting() -> Any:
    return require("dp_accounting", "private", "privacy accounting")


def _check_run(owner: str, sampling_rate: float, steps: int, delta: float) -> None:
    if not 0 < sampling_rate <= 1:
        raise ValueError(f"{owner}: sampling_rate must be in (0, 1]; got {sampling_rate!r}.")
    if steps < 0:
        raise ValueError(f"{owner}: steps must be a whole number of at least 0; got {steps!r}.")
    if not 0 < delta < 1:
        raise ValueError(f"{owner}: delta must be in (0, 1); got {delta!r}.")
