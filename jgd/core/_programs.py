"""Looking into traced programs."""

from typing import Any


def programs_inside(equation: Any) -> list[Any]:
    """The jaxprs that one equation of a jaxpr runs: the bodies of loops and branches, and of functions that it calls.

    Examples:
        >>> import jax
        >>> from jgd.core import programs_inside
        >>> jaxpr = jax.make_jaxpr(lambda x: jax.lax.cond(x > 0, abs, lambda x: 2 * x, x))(1.0).jaxpr
        >>> print([len(programs_inside(equation)) for equation in jaxpr.eqns if equation.primitive.name == "cond"])
        [2]
    """
    inside = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(item, "jaxpr", item)
            if hasattr(jaxpr, "eqns"):
                inside.append(jaxpr)
    return inside
