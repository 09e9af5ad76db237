"""`chunk_size="auto"`: as many examples at a time as a memory budget allows, by the compiler's own account.

A pass over chunks of 1 and of 2 examples is compiled, not run; what it takes grows by the same amount with each further
example, nearly. The largest power of two (or the whole batch) that should fit is compiled as well, and halved until
it does.
"""

from collections.abc import Callable
from typing import Any

import jax

#: The chunk where there is no budget: on a device that does not report its memory, such as a CPU.
DEFAULT_CHUNK = 32
#: The part of a device's free memory that a pass may take.
FREE_SHARE = 0.5


def auto_chunk_size(size: int, memory: int | None, bytes_of: Callable[[int], int | None]) -> int:
    """How many examples to take at a time.

    Args:
        size: How many examples there are.
        memory: The budget in bytes for temporary arrays and results; None for a share of what the device has free.
        bytes_of: From a chunk size to what a pass takes; None where the compiler gives no account.

    Raises:
        ValueError: Not even one example at a time fits.
    """
    budget = free_memory() if memory is None else memory
    if budget is None:
        return min(DEFAULT_CHUNK, size)
    one = bytes_of(1)
    if one is None:
        return min(DEFAULT_CHUNK, size)
    if one > budget:
        raise ValueError(f'chunk_size="auto": one example at a time takes {one} bytes; memory={budget} allows fewer.')
    if size < 2:
        return size
    slope = max((bytes_of(2) or one) - one, 1)
    fits = int(1 + (budget - one) // slope)
    chunk = size if fits >= size else 1 << (fits.bit_length() - 1)
    while chunk > 2 and (bytes_of(chunk) or 0) > budget:
        chunk = 1 << ((chunk - 1).bit_length() - 1)
    return chunk if chunk != 2 or one + slope <= budget else 1


def free_memory() -> int | None:
    """The bytes that a pass may take on the first device; None where it does not report its memory."""
    stats = jax.local_devices()[0].memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return int(FREE_SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))


def program_bytes(program: Callable[..., Any], *arguments: Any) -> int | None:
    """Temporary arrays and results of a compiled program, for arguments of which only shapes and dtypes matter."""

    def described(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    used = jax.jit(program).lower(*jax.tree.map(described, arguments)).compile().memory_analysis()
    return None if used is None else used.temp_size_in_bytes + used.output_size_in_bytes
