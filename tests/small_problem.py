"""Every rule of jgd with the arguments that one would give it first, and every flag."""

import inspect

import jax
import jax.numpy as jnp

import jgd
import jgd.rules

#: Factories of optimizers: all public callables of `jgd.rules` that give an optimizer, in alphabetical order.
FACTORIES = sorted(
    name
    for name, value in vars(jgd.rules).items()
    if inspect.isfunction(value) and value.__annotations__.get("return") is jgd.Optimizer and hasattr(jgd, name)
)

#: What an update needs beside gradients, state and params: functions of the loss and its gradient.
NEEDS = {
    "polyak_sgd": ("value",),
    "momo": ("value",),
    "momo_adam": ("value",),
    "sophia": ("obj_fn",),
    "lbfgs": ("value", "grad", "value_fn"),
}

#: Rules that find their own learning rate: one is what they are made for.
FREE = {"cocob", "dadapt_adamw", "dog", "dowg", "ldog", "momo", "polyak_sgd", "prodigy"}
RATES = {"adadelta": 1.0, "lars": 1.0, "adafactor": 0.1, "lbfgs": None}


def make(name, **more):
    """The rule with a usual learning rate and everything else as it comes."""
    factory = getattr(jgd, name)
    if name in FREE:
        return factory(**more)
    return factory(RATES.get(name, 0.01), **more)


def extra(name, loss, params, grads):
    """The further arguments of an update of that rule."""
    known = {"value": loss(params), "grad": grads, "value_fn": loss, "obj_fn": loss}
    return {key: known[key] for key in NEEDS.get(name, ())}


FLAGS = {
    "cautious": jgd.cautious,
    "cautious_decay": lambda inner: jgd.cautious_decay(inner, 0.1),
    "mars": jgd.mars,
    "hyperball": jgd.hyperball,
    "clip_update_rms": jgd.clip_update_rms,
    "adaptive_grad_clip": lambda inner: jgd.chain(jgd.adaptive_grad_clip(0.1), inner),
    "trust_ratio": jgd.trust_ratio,
    "ema_nesterov": jgd.ema_nesterov,
    "lookahead": lambda inner: jgd.lookahead(inner, 2, 0.5),
    "schedule_free": lambda inner: jgd.schedule_free(inner, 0.01),
    "average_params": jgd.average_params,
    "grams": jgd.grams,
    "orthogonal_gradient": jgd.orthogonal_gradient,
    "centralize": lambda inner: jgd.chain(jgd.centralize(), inner),
    "accumulate": lambda inner: jgd.accumulate(inner, 2),
    "skip_nonfinite": jgd.skip_nonfinite,
    "groups": lambda inner: jgd.groups({"*": inner}),
}


def small_params(dtype="float32"):
    """A matrix, a vector, a small kernel and a scalar."""
    shapes = {"kernel": (2, 2, 2, 3), "matrix": (4, 3), "scalar": (), "vector": (3,)}
    return {
        name: jnp.cos(jnp.arange(1, 1 + int(jnp.prod(jnp.array(shape)))).reshape(shape)).astype(dtype)
        for name, shape in shapes.items()
    }


def quadratic(params):
    """Something to descend: its minimum is at one half."""
    return sum(jnp.sum((leaf.astype(jnp.float32) - 0.5) ** 2) for leaf in jax.tree.leaves(params))
