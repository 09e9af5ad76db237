"""The 27 nonlinear regressions of NIST's Statistical Reference Datasets, whose results are certified to 11 digits.

The data, both starts and the certified values are NIST's (https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml, in
the public domain), read from the files that lmfit keeps in its repository (https://github.com/lmfit/lmfit-py, folder
`NIST_STRD`).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ._problem import as_data

Array = jax.Array
Model = Callable[..., Array]


@dataclass(frozen=True)
class Regression:
    """A model, data to fit it to, and the certified fit.

    Attributes:
        name: NIST's name.
        model: ``(x, b) -> y [m]`` from the predictor and the params [n].
        x: The predictor [m], or [2, m].
        y: The response [m].
        starts: NIST's two starts [2, n]: the first one far off, the second one near.
        params: The certified params [n].
        errors: Their certified standard deviations [n].
        squares: The certified sum of the squared residuals.
    """

    name: str
    model: Model
    x: np.ndarray
    y: np.ndarray
    starts: np.ndarray
    params: np.ndarray
    errors: np.ndarray
    squares: float

    def residuals(self, b: Array) -> Array:
        """What the model leaves of the data [m]."""
        return self.model(as_data(self.x, b), b) - as_data(self.y, b)

    @property
    def size(self) -> int:
        """How many params there are."""
        return len(self.params)


def saturation(x: Array, b: Array) -> Array:
    return b[0] * (1 - jnp.exp(-b[1] * x))


def chwirut(x: Array, b: Array) -> Array:
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def lanczos(x: Array, b: Array) -> Array:
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def two_peaks(x: Array, b: Array) -> Array:
    first, second = (b[i] * jnp.exp(-(((x - b[i + 1]) / b[i + 2]) ** 2)) for i in (2, 5))
    return b[0] * jnp.exp(-b[1] * x) + first + second


def cubic_over_cubic(x: Array, b: Array) -> Array:
    above = b[0] + x * (b[1] + x * (b[2] + x * b[3]))
    return above / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def kirby(x: Array, b: Array) -> Array:
    return (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4]))


def enso(x: Array, b: Array) -> Array:
    turns = 2 * np.pi * x
    cycles = [(12.0, b[1], b[2]), (b[3], b[4], b[5]), (b[6], b[7], b[8])]
    return b[0] + sum(c * jnp.cos(turns / period) + s * jnp.sin(turns / period) for period, c, s in cycles)


def roszman(x: Array, b: Array) -> Array:
    return b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / np.pi


MODELS: dict[str, Model] = {
    "Bennett5": lambda x, b: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": saturation,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": lambda x, b: b[0] * x ** b[1],
    "ENSO": enso,
    "Eckerle4": lambda x, b: b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": two_peaks,
    "Gauss2": two_peaks,
    "Gauss3": two_peaks,
    "Hahn1": cubic_over_cubic,
    "Kirby2": kirby,
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": lambda x, b: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda x, b: b[0] * jnp.exp(b[1] / (x + b[2])),
    "MGH17": lambda x, b: b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4]),
    "Misra1a": saturation,
    "Misra1b": lambda x, b: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda x, b: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda x, b: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda x, b: b[0] - b[1] * x[0] * jnp.exp(-b[2] * x[1]),
    "Rat42": lambda x, b: b[0] / (1 + jnp.exp(b[1] - b[2] * x)),
    "Rat43": lambda x, b: b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": roszman,
    "Thurber": cubic_over_cubic,
}


def _load() -> dict[str, Regression]:
    """The regressions by name."""
    found = json.loads((Path(__file__).parent / "nist.json").read_text())
    made = {}
    for name, data in found.items():
        arrays = {key: np.asarray(data[key], np.float64) for key in ("x", "y", "starts", "params", "errors")}
        if name == "Nelson":  # its model is of the logarithm
            arrays["y"] = np.log(arrays["y"])
        made[name] = Regression(name, MODELS[name], squares=data["squares"], **arrays)
    return made


REGRESSIONS = _load()
