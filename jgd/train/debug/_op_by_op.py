"""A function run operation by operation, to find the first one whose result is not finite."""

import linecache
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jgd.core import ArrayLike, PyTree, path_keys

_OWN_FOLDERS = (str(Path(jax.__file__).parent), str(Path(__file__).parents[1]))

# Operations that only hold others, by the name of the parameter that holds them.
_HOLDERS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


class Origin(NamedTuple):
    """Where a value that is not finite came from."""

    order: int  # how many operations ran before it; -1 for what went in
    operation: str  # the operation's name, or the path of an input
    source: str  # file, line and function, or nothing
    line: str  # that line of the file
    inside: tuple[str, ...]  # loops around it, with their iteration
    makes: str  # "NaN" or "infinity"


class _Value(NamedTuple):
    data: Any
    origin: Origin | None = None  # None for what is finite


def first_not_finite(function: Callable[..., PyTree], **arguments: PyTree) -> tuple[PyTree, Origin | None]:
    """Runs `function(**arguments)` without compiling it as a whole.

    What is not finite within, and is gone before the end (a mask of minus infinity, say), is no cause of anything.

    Args:
        function: Any function that JAX can trace.
        **arguments: Trees of arrays.

    Returns:
        `(result, origin)`: what the function returns, and where the earliest of all that is not finite in it came
        from; None where all of it is finite.
    """
    closed, shape = jax.make_jaxpr(lambda values: function(**values), return_shape=True)(arguments)
    paths = jax.tree_util.tree_flatten_with_path(arguments)[0]
    inputs = [_Value(jnp.asarray(leaf), _of_input(path, leaf)) for path, leaf in paths]
    results = _Interpreter().evaluate(
        closed.jaxpr, [_Value(const, _of_input((), const)) for const in closed.consts], inputs
    )
    origins = [value.origin for value in results if value.origin is not None]
    result = jax.tree.unflatten(jax.tree.structure(shape), [value.data for value in results])
    return result, min(origins, key=lambda origin: origin.order, default=None)


def is_finite(value: ArrayLike) -> bool:
    """Whether an array holds neither NaN nor infinity; integers never do."""
    return not jnp.issubdtype(jnp.result_type(value), jnp.inexact) or bool(jnp.all(jnp.isfinite(value)))


def _of_input(path: tuple[Any, ...], leaf: Any) -> Origin | None:
    if is_finite(leaf):
        return None
    name = str(path_keys(path)[0]) + jax.tree_util.keystr(path[1:]) if path else "a constant"
    return Origin(-1, name, "", "", (), _kind_of(leaf))


def _kind_of(value: Any) -> str:
    return "NaN" if bool(jnp.any(jnp.isnan(value))) else "infinity"


class _Interpreter:
    def __init__(self) -> None:
        self.order = 0

    def evaluate(
        self,
        jaxpr: Any,
        consts: Sequence[_Value],
        inputs: Sequence[_Value],
        inside: tuple[str, ...] = (),
    ) -> list[_Value]:
        known: dict[Any, _Value] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

        def read(atom: Any) -> _Value:
            return _Value(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for eqn in jaxpr.eqns:
            results = self._operation(eqn, [read(atom) for atom in eqn.invars], inside)
            known.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _operation(self, eqn: Any, inputs: list[_Value], inside: tuple[str, ...]) -> list[_Value]:
        name, params = eqn.primitive.name, eqn.params
        if name in _HOLDERS and _HOLDERS[name] in params:
            return self._evaluate_closed(params[_HOLDERS[name]], inputs, inside)
        if name == "cond":
            branch = params["branches"][int(inputs[0].data)]
            return self._evaluate_closed(branch, inputs[1:], inside)
        self.order += 1
        order = self.order
        results = _as_one(eqn, [value.data for value in inputs])
        if all(map(is_finite, results)):
            return [_Value(result) for result in results]
        if name == "scan" and (counts := _scan_counts(params, len(inputs))) is not None:
            return self._scan(params, *counts, inputs, inside)
        if name == "while":
            return self._while(params, inputs, inside)
        source, line = _source_of(eqn)
        carried = [value.origin for value in inputs if value.origin is not None]
        # Of an infinity and a NaN that meet, the NaN is what is left.
        carried = [origin for origin in carried if origin.makes == "NaN"] or carried
        cause = min(carried, key=lambda origin: origin.order, default=None)

        def origin(result: Any) -> Origin | None:
            if is_finite(result):
                return None
            return cause or Origin(order, name, source, line, inside, _kind_of(result))

        return [_Value(result, origin(result)) for result in results]

    def _evaluate_closed(self, closed: Any, inputs: Sequence[_Value], inside: tuple[str, ...]) -> list[_Value]:
        consts = [_Value(const, _of_input((), const)) for const in getattr(closed, "consts", ())]
        return self.evaluate(getattr(closed, "jaxpr", closed), consts, inputs, inside)

    def _scan(
        self, params: Any, num_consts: int, num_carry: int, inputs: list[_Value], inside: tuple[str, ...]
    ) -> list[_Value]:
        at_carry = num_consts + num_carry
        consts, carry, stacked = inputs[:num_consts], inputs[num_consts:at_carry], inputs[at_carry:]
        length, outputs = params["length"], {}
        for i in reversed(range(length)) if params["reverse"] else range(length):
            items = [_Value(s.data[i], None if is_finite(s.data[i]) else s.origin) for s in stacked]
            place = (*inside, f"iteration {i} of a scan of {length}")
            results = self._evaluate_closed(params["jaxpr"], [*consts, *carry, *items], place)
            carry, outputs[i] = results[:num_carry], results[num_carry:]
        columns = zip(*(outputs[i] for i in range(length)), strict=True)
        return [*carry, *(_stacked(column) for column in columns)]

    def _while(self, params: Any, inputs: list[_Value], inside: tuple[str, ...]) -> list[_Value]:
        at_body = params["cond_nconsts"]
        at_carry = at_body + params["body_nconsts"]
        of_cond, of_body, carry = inputs[:at_body], inputs[at_body:at_carry], inputs[at_carry:]
        i = 0
        while bool(self._evaluate_closed(params["cond_jaxpr"], [*of_cond, *carry], inside)[0].data):
            place = (*inside, f"iteration {i} of a while loop")
            carry = self._evaluate_closed(params["body_jaxpr"], [*of_body, *carry], place)
            i += 1
        return carry


def _as_one(eqn: Any, inputs: list[Any]) -> list[Any]:
    results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


def _scan_counts(params: Any, inputs: int) -> tuple[int, int] | None:
    """How many constants and how many carried values a scan has; None in versions of JAX that store them otherwise."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    if "ft_in" in params:  # from JAX 0.11 on
        consts, carry, _ = params["ft_in"].update(list(range(inputs))).unpack()
        return len(list(consts)), len(list(carry))
    return None


def _stacked(column: Sequence[_Value]) -> _Value:
    origins = [value.origin for value in column if value.origin is not None]
    cause = min(origins, key=lambda origin: origin.order, default=None)
    return _Value(jnp.stack([jnp.asarray(value.data) for value in column]), cause)


def _source_of(eqn: Any) -> tuple[str, str]:
    """The innermost line of the user's own files, or else of any but JAX's and this library's."""
    trace = getattr(eqn.source_info, "traceback", None)
    if trace is None:
        return "", ""
    frames = traceback.extract_tb(trace.as_python_traceback())
    frames = [frame for frame in frames if not frame.filename.startswith(_OWN_FOLDERS)]
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    if not frames:
        return "", ""
    frame = frames[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{Path(frame.filename).name}:{frame.lineno} ({frame.name})", line
