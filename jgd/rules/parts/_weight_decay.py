r"""Weight decay in the forms that are in use, for any rule.

With the rule's update $\delta_t$, the learning rate $\eta$ and the weight decay $\lambda$:

| `decay_form` | the new $\theta$ | used in |
| --- | --- | --- |
| `"scaled"` | $\theta + \delta - \eta \lambda \theta$ | AdamW in optax and PyTorch |
| `"after"` | $(\theta + \delta)(1 - \eta \lambda)$ | the first release of LaProp, APOLLO |
| `"independent"` | $\theta + \delta - \lambda \theta$ | Loshchilov and Hutter's paper |
| `"squared"` | $\theta + \delta - \eta^2 \lambda \theta$ | speed runs of small language models |
| `"proximal"` | $(\theta + \delta) / (1 + \eta \lambda)$ | Adan |
| `"coupled"` | $\theta + \delta$, where the rule is given $g + \lambda \theta$ | L2 regularization; Adam in PyTorch |

A decay in proportion to $\eta / \eta_{max}$ is `"scaled"` with $\lambda / \eta_{max}$.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

from jgd.core import (
    Array,
    Hyper,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    ScalarOrSchedule,
    Slots,
    TreeRule,
    broadcast_mask,
    check_choice,
    is_float,
    lift,
    show_by_name,
)

DecayForm = Literal["scaled", "after", "independent", "squared", "proximal", "coupled"]
show_by_name(globals(), "DecayForm")


def decayed(rule: Rule, form: DecayForm = "scaled") -> Rule:
    """The rule with weight decay; it reads the hyperparameters `learning_rate` and `weight_decay`.

    Args:
        rule: Any rule for leaves.
        form: How the decay enters, by a name of the table above.

    Returns:
        A rule that needs params.

    Raises:
        ValueError: There is no such form.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import Rule, lift
        >>> from jgd.rules import decayed
        >>> rule = Rule(lambda grad, slots, param, hyper, step: (-hyper["learning_rate"] * grad, slots))
        >>> optimizer = lift(decayed(rule), {"learning_rate": 0.1, "weight_decay": 0.5}, name="decaying_descent")
        >>> params = jnp.array([1.0])
        >>> print(optimizer.update(jnp.array([3.0]), optimizer.init(params), params)[0].round(2))
        [-0.35]
    """
    check_choice("weight decay", "decay_form", form, DecayForm)

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        decay = hyper["decayed_share"]
        if form == "coupled":
            return rule.update(grad + decay * param, slots, param, hyper, step)
        delta, slots = rule.update(grad, slots, param, hyper, step)
        if form == "after":
            return delta - decay * (param + delta), slots
        if form == "proximal":
            return (delta - decay * param) / (1 + decay), slots
        return delta - decay * param, slots

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        rate = {"independent": 1.0, "coupled": 1.0, "squared": hyper["learning_rate"] ** 2}
        return rule.prepare(hyper, step) | {
            "decayed_share": rate.get(form, hyper["learning_rate"]) * hyper["weight_decay"]
        }

    return dataclasses.replace(rule, update=update, needs_params=True, prepare=prepare)


def lift_decayed(
    rule: Rule,
    hyperparams: dict[str, ScalarOrSchedule],
    weight_decay: ScalarOrSchedule,
    mask: Mask,
    form: DecayForm = "scaled",
    *,
    name: str,
    scaled: Rule | None = None,
    **more: Any,
) -> Optimizer:
    """Lifts a rule with weight decay on the leaves that the mask names, and without it on the others.

    Args:
        rule: Any rule for leaves, without weight decay.
        hyperparams: The rule's hyperparameters by name; `weight_decay` joins them.
        weight_decay: How strong the decay is, at least 0.
        mask: Which leaves decay; as for `jgd.adamw`.
        form: How the decay enters; see `decayed`.
        name: The factory's name, for messages and for `print`.
        scaled: The rule with scaled decay, where it has a form of its own that rounds less.
        more: Further arguments of `jgd.core.lift`.

    Returns:
        An optimizer.

    Raises:
        TypeError, ValueError: As for `jgd.core.lift`; there is no such form.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import Rule
        >>> from jgd.rules import lift_decayed
        >>> rule = Rule(lambda grad, slots, param, hyper, step: (-hyper["learning_rate"] * grad, slots))
        >>> optimizer = lift_decayed(rule, {"learning_rate": 0.1}, 0.5, {"w": True, "b": False}, name="descent")
        >>> params = {"w": jnp.array([1.0]), "b": jnp.array([1.0])}
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> print(updates["w"].round(3), updates["b"])
        [-0.15] [-0.1]
    """
    decaying = scaled if scaled is not None and form == "scaled" else decayed(rule, form)
    choose = choose_by_mask(name, mask, decaying, rule)
    return lift(decaying, hyperparams | {"weight_decay": weight_decay}, name=name, choose=choose, **more)


def choose_by_mask(name: str, mask: Mask, decaying: Rule, plain: Rule) -> Callable[[PyTree], PyTree] | None:
    """What `lift` takes as `choose`: a rule for the leaves that decay and one for the others; None where all decay."""

    def choose(params: PyTree) -> PyTree:
        return jax.tree.map(lambda decays: decaying if decays else plain, broadcast_mask(name, mask, params))

    return None if mask is None else choose


def choose_decaying(name: str, mask: Mask, rule: Callable[[Sequence[bool]], TreeRule]) -> Callable[[PyTree], PyTree]:
    """For a rule of the whole tree: `choose(params)` with the rule that knows which of its leaves decay."""

    def choose(params: PyTree) -> PyTree:
        leaves, treedef = jax.tree.flatten(params)
        flags = jax.tree.leaves(broadcast_mask(name, mask, params))
        of_tree = rule([flag for flag, leaf in zip(flags, leaves, strict=True) if is_float(leaf)])
        return treedef.unflatten([of_tree] * len(leaves))

    return choose


def coupled_decay(name: str, mask: Mask) -> Callable[[PyTree, PyTree, Hyper], PyTree]:
    """What adds `weight_decay * params` to the gradients of a whole tree, for rules that need it so."""

    def before(grads: PyTree, params: PyTree, hyper: Hyper) -> PyTree:
        def add(grad: Any, param: Any, decays: bool) -> Any:
            if not (decays and is_float(param)):
                return grad
            return grad + (hyper["weight_decay"] * param).astype(grad.dtype)

        return jax.tree.map(add, grads, params, broadcast_mask(name, mask, params))

    return before
