"""The convolution."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, DTypeLike, check_choice, checked
from jgd.gradients.probes._parts import Part, Products
from jgd.gradients.probes._recorder import Probe, call

Padding = str | Sequence[tuple[int, int]]


class Conv(NamedTuple):
    """See `conv`."""

    strides: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    dtype: Any
    name: str = "conv"

    def apply(self, x: Array, w: Array) -> Array:
        """The convolution of channels-last inputs."""
        dtype = self.dtype or jnp.result_type(x, w)
        spatial = "DHW"[3 - len(self.strides) :]
        return jax.lax.conv_general_dilated(
            x.astype(dtype),
            jnp.asarray(w).astype(dtype),
            self.strides,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
            feature_group_count=self.groups,
        )

    def part(self, x: Array, w: Array, delta: Array) -> Part:
        """One product for each offset of the kernel: with what lies under it at every position."""
        kernel, spatial = w.shape[:-2], x.shape[1:-1]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, self.dilation, strict=True)]
        padding = self.padding
        if isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(spatial, reach, self.strides, padding)
        padded = jnp.pad(x.astype(delta.dtype), [(0, 0), *padding, (0, 0)])
        out = delta.shape[1:-1]
        xs = []
        for offset in itertools.product(*(range(k) for k in kernel)):
            start = [o * d for o, d in zip(offset, self.dilation, strict=True)]
            stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, out, self.strides, strict=True)]
            under = jax.lax.slice(
                padded, (0, *start, 0), (len(x), *stop, padded.shape[-1]), strides=(1, *self.strides, 1)
            )
            xs.append(self._by_group(under))
        return Products(tuple(xs), self._by_group(delta), self.groups)

    def _by_group(self, x: Array) -> Array:
        """`[B, *positions, G C]` as `[B G, T, C]`."""
        x = x.reshape(len(x), math.prod(x.shape[1:-1]), self.groups, x.shape[-1] // self.groups)
        return jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1], x.shape[-1])


@checked
def conv(
    x: ArrayLike,
    w: ArrayLike,
    probe: Probe | None = None,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    *,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    dtype: DTypeLike | None = None,
) -> Array:
    """The convolution of channels-last inputs in one, two or three dimensions.

    Args:
        x: `[B, *spatial, C]`.
        w: `[*kernel, C / groups, O]`.
        probe: What the loss was given; `None` computes the convolution and no more.
        strides: One for all spatial axes, or one for each.
        padding: `"SAME"`, `"VALID"`, or `(low, high)` for each spatial axis, not negative.
        dilation: The spacing of the kernel's elements.
        groups: Groups of channels that do not mix; `groups=C` is a depthwise convolution.
        dtype: What both are cast to; that of their promotion unless given.

    Returns:
        `[B, *positions, O]`.

    Raises:
        ValueError: Shapes that do not fit; with a probe also a weight that is no leaf of the params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> print(probes.conv(jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4)), strides=2).shape)
        (2, 4, 4, 4)
    """
    count, x_shape, w_shape = jnp.ndim(x) - 2, jnp.shape(x), jnp.shape(w)
    shapes = f"probes.conv: x has shape {x_shape} and w {w_shape}"
    if not 1 <= count <= 3 or len(w_shape) != count + 2:
        raise ValueError(f"{shapes}; expected [B, *spatial, C] and [*kernel, C / groups, O] with 1 to 3 spatial axes.")
    if x_shape[-1] != w_shape[-2] * groups or w_shape[-1] % groups:
        raise ValueError(
            f"{shapes}; with groups={groups} expected w to have C / groups inputs and a multiple of outputs."
        )
    if isinstance(padding, str):
        check_choice("probes.conv", "padding", padding, Literal["SAME", "VALID", "SAME_LOWER"])
    else:
        padding = tuple((int(low), int(high)) for low, high in padding)
        if len(padding) != count or min(map(min, padding)) < 0:
            raise ValueError(f"probes.conv: padding={padding}; expected {count} pairs (low, high), none negative.")
    operation = Conv(_each(strides, count, "strides"), padding, _each(dilation, count, "dilation"), groups, dtype)
    return call(operation, x, w, probe)


def _each(value: int | Sequence[int], count: int, name: str) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * count
    if len(values) != count or min(values) < 1:
        raise ValueError(f"probes.conv: {name}={value}; expected a number of at least 1, or {count} of them.")
    return values
