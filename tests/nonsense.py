"""Nonsense for every public call: a valid call of each, and the arguments that are put in the place of its own.

`calls()` gives a row a public name, with arguments that are right; `answers` calls it with one of them replaced and
says whether what came back is an answer of jgd's: a result, or an error that one of jgd's own lines raises.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
import linecache
import pathlib
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np

import jgd
import jgd.compat.optax
import jgd.gradients.probes
import jgd.testing

ROOT = str(pathlib.Path(jgd.__file__).parent)

# One of each kind that a slip of the fingers, a wrong order of arguments or another library's habit hands over.
VALUES = {
    "none": None,
    "text": "nonsense",
    "bytes": b"x",
    "true": True,
    "minus_one": -1,
    "zero": 0,
    "half": 0.5,
    "huge": 10**30,
    "nan": float("nan"),
    "infinite": float("inf"),
    "complex": 1j,
    "list": [1, "two"],
    "empty": (),
    "dict": {"nonsense": 1},
    "object": object(),
    "class": dict,
    "module": types,
    "matrix": np.arange(6.0).reshape(2, 3),
    "texts": np.array(["a", "b"]),
    "factory": jgd.adam,
    "optimizer": jgd.sgd(0.1),
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A public call with arguments that are right, and what a user does next with what it returns."""

    call: Callable[..., Any]
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    then: Callable[[Any], Any] | None = None
    positional: tuple[Any, ...] = ()  # for `*args`
    traced: bool = False  # where the call compiles a program: it is traced and not run

    def parameters(self) -> tuple[str, ...]:
        """The arguments that can be given by name."""
        named = inspect.signature(self.call).parameters.values()
        return tuple(p.name for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


@functools.cache
def _params():
    return {"w": jnp.ones((4, 4)), "b": jnp.zeros(4)}


def _batch():
    return {"x": jnp.ones((8, 4)), "y": jnp.zeros((8, 4))}


def _loss(params, batch, key=None):
    del key
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


def _losses(params, batch, probe=None):
    x = jgd.gradients.probes.dense(batch["x"], params["w"], probe)
    return jnp.sum((jgd.gradients.probes.bias(x, params["b"], probe) - batch["y"]) ** 2, axis=1)


def _bowl(x):
    return jnp.sum((x - 1.0) ** 2)


def _goes_on(result: Any, state: Any = None) -> None:
    """A callback of `fit` that stops runs that go on for ever."""
    del result, state
    _CALLS.append(None)
    if len(_CALLS) > 2:
        raise ValueError("enough")


_CALLS: list[None] = []


def _two_steps(optimizer: Any, names: tuple[str, ...] = ("value", "grad", "value_fn", "obj_fn")) -> None:
    """The state is made and an update traced, as a user's jitted step would."""
    params = _params()
    extra = {"value": jnp.ones(()), "grad": params, "value_fn": lambda p: jnp.sum(p["w"] ** 2)}
    extra["obj_fn"] = extra["value_fn"]
    extra = {name: extra[name] for name in names}

    def both(params: Any) -> Any:
        return optimizer.update(params, optimizer.init(params), params, **extra)

    jax.eval_shape(both, params)


USERS = {function.__code__ for function in (_loss, _losses, _bowl, _goes_on)}


def _factories() -> Iterator[tuple[str, Call]]:
    for rule in cases.RULES:
        factory = getattr(jgd, rule.name)
        names = list(inspect.signature(factory).parameters)
        then = (
            functools.partial(_two_steps, names=("value", "grad", "value_fn")) if rule.name == "lbfgs" else _two_steps
        )
        yield rule.name, Call(factory, dict(zip(names, rule.first, strict=False)), then)
    inner = {"optimizer": jgd.sgd(0.1), "base_optimizer": jgd.sgd(0.1), "fast_optimizer": jgd.sgd(0.1)}
    more = {
        "accumulate": {"every": 2},
        "cautious_decay": {"weight_decay": 0.1},
        "groups": {"optimizers": {"*": jgd.sgd(0.1)}},
        "sam": {"adv_optimizer": jgd.sgd(0.05)},
    }
    for wrapper in cases.WRAPPERS:
        factory = getattr(jgd, wrapper.name)
        names = inspect.signature(factory).parameters
        given = {n: v for n, v in inner.items() if n in names} | more.get(wrapper.name, {})
        required = [n for n, p in names.items() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        given |= {n: 1.0 for n in required if n not in given}
        yield wrapper.name, Call(factory, given, _two_steps)


def _transforms() -> Mapping[str, Call]:
    one = jgd.sgd(0.1)
    return {
        "MultiSteps": Call(jgd.MultiSteps, {"opt": one, "every_k_schedule": 2}, _two_steps),
        "add_decayed_weights": Call(jgd.add_decayed_weights, {}, _two_steps),
        "add_noise": Call(jgd.add_noise, {"eta": 0.1, "gamma": 0.5, "seed": 0}, _two_steps),
        "chain": Call(jgd.chain, {}, _two_steps, positional=(one,)),
        "clip": Call(jgd.clip, {"max_delta": 1.0}, _two_steps),
        "clip_by_block_rms": Call(jgd.clip_by_block_rms, {"threshold": 1.0}, _two_steps),
        "clip_by_global_norm": Call(jgd.clip_by_global_norm, {"max_norm": 1.0}, _two_steps),
        "differentially_private_aggregate": Call(
            jgd.differentially_private_aggregate, {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "seed": 0}
        ),
        "dpsgd": Call(jgd.dpsgd, {"learning_rate": 0.1, "l2_norm_clip": 1.0, "noise_multiplier": 1.0, "seed": 0}),
        "masked": Call(jgd.masked, {"inner": one, "mask": {"w": True, "b": False}}, _two_steps),
        "normalize": Call(jgd.normalize, {}, _two_steps),
        "partition": Call(jgd.partition, {"transforms": {"a": one}, "param_labels": {"w": "a", "b": "a"}}, _two_steps),
        "named_chain": Call(jgd.named_chain, {}, _two_steps, positional=(("one", one),)),
        "freeze": Call(jgd.freeze, {"mask": {"w": True, "b": False}}, _two_steps),
        "reduce_on_plateau": Call(jgd.reduce_on_plateau, {}, _two_steps),
        "scale_by_learning_rate": Call(jgd.scale_by_learning_rate, {"learning_rate": 0.1}, _two_steps),
        "schedule_free_adamw": Call(jgd.schedule_free_adamw, {}, _two_steps),
        "schedule_free_sgd": Call(jgd.schedule_free_sgd, {}, _two_steps),
        "split_master_weights": Call(jgd.split_master_weights, {"optimizer": one}),
        "split_real_and_imaginary": Call(jgd.split_real_and_imaginary, {"inner": one}, _two_steps),
        "stochastic_rounding": Call(jgd.stochastic_rounding, {"optimizer": one}, _two_steps),
    }


def _states() -> Mapping[str, Call]:
    adam, params = jgd.adam(0.1), _params()
    state = adam.init(params)
    free = jgd.schedule_free_sgd(0.1)
    master = jgd.split_master_weights(jgd.sgd(0.1))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    return {
        "adam_mini_blocks": Call(jgd.adam_mini_blocks, {"params": params}),
        "matrix_axes_for": Call(jgd.matrix_axes_for, {"params": params, "preset": "flax"}),
        "AdamMiniBlocks": Call(jgd.AdamMiniBlocks, {"axis": 0}),
        "apply_updates": Call(jgd.apply_updates, {"params": params, "updates": params}),
        "update_params": Call(
            jgd.update_params, {"optimizer": adam, "grads": params, "opt_state": state, "params": params}
        ),
        "eval_params": Call(jgd.eval_params, {"opt_state": free.init(params), "params": params}),
        "schedule_free_eval_params": Call(
            jgd.schedule_free_eval_params, {"state": free.init(params), "params": params}
        ),
        "master_params": Call(jgd.master_params, {"opt_state": master.init(half), "params": half}),
        "get_hyperparams": Call(jgd.get_hyperparams, {"opt_state": state}),
        "set_hyperparams": Call(lambda opt_state, learning_rate=0.1, b1=0.9: jgd.set_hyperparams(
            opt_state, learning_rate=learning_rate, b1=b1), {"opt_state": state}),
        "global_norm": Call(jgd.global_norm, {"tree": params}),
        "pack": Call(jgd.pack, {"tree": params}),
        "unpack": Call(jgd.unpack, {"tree": jgd.pack(params)}),
        "state_bytes": Call(jgd.state_bytes, {"state": state, "params": params}),
        "adam.init": Call(adam.init, {"params": params}),
        "adam.update": Call(lambda grads, state, params: adam.update(grads, state, params),
                            {"grads": params, "state": state, "params": params}),
    }  # fmt: skip


def _training(folder: pathlib.Path) -> Mapping[str, Call]:
    optimizer, params, batch = jgd.sgd(0.1), _params(), _batch()
    state = jgd.TrainState.create(params, optimizer)
    step = jgd.make_step(_loss, optimizer, donate=False)
    saved = jgd.save_checkpoint(folder / "saved", state)

    def once(step: Any) -> Any:
        return jax.eval_shape(lambda s, b: step(s, b), state, batch)

    private = {"max_norm": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 8}
    return {
        "ArrayLoader": Call(jgd.ArrayLoader, {"arrays": batch, "batch_size": 4}, lambda loader: next(iter(loader))),
        "PoissonLoader": Call(
            jgd.PoissonLoader, {"arrays": batch, "expected_batch_size": 4}, lambda loader: next(iter(loader))
        ),
        "Padded": Call(lambda batch, mask: jgd.Padded(batch, mask), {"batch": batch, "mask": jnp.ones(8, bool)}),
        "Checkpoints": Call(jgd.Checkpoints, {"folder": folder / "many"}),
        "Guard": Call(jgd.Guard),
        "LossScale": Call(jgd.LossScale),
        "Spikes": Call(jgd.Spikes),
        "Rollback": Call(jgd.Rollback),
        "TrainState.create": Call(jgd.TrainState.create, {"params": params, "optimizer": optimizer}),
        "make_step": Call(jgd.make_step, {"loss_fn": _loss, "optimizer": optimizer}, once),
        "step": Call(lambda state, batch: step(state, batch), {"state": state, "batch": batch}),
        "scan_steps": Call(jgd.scan_steps, {"step": step}),
        "scanned": Call(
            lambda state, batches: jgd.scan_steps(step)(state, batches),
            {"state": state, "batches": jax.tree.map(lambda x: x[None], batch)},
        ),
        "fit": Call(
            jgd.fit,
            {"state": state, "step": step, "data": [batch], "epochs": 1, "progress": False, "callbacks": [_goes_on]},
        ),
        "debug_step": Call(jgd.debug_step, {"step": step, "state": state, "batch": batch}),
        "dp_sgd": Call(jgd.dp_sgd, {"loss_fn": _loss, "optimizer": optimizer} | private),
        "events_of": Call(jgd.events_of, {"metrics": {"loss": jnp.ones(())}, "step": 1}),
        "load_bundle": Call(jgd.load_bundle, {"path": folder / "none"}),
        "save_checkpoint": Call(jgd.save_checkpoint, {"path": folder / "new", "state": state}),
        "restore_params": Call(jgd.restore_params, {"path": saved, "like": params}),
        "restore_checkpoint": Call(jgd.restore_checkpoint, {"path": saved, "like": state}),
    }


def _gradients() -> Mapping[str, Call]:
    from jgd import gradients
    from jgd.gradients import probes

    params, batch = _params(), _batch()

    def traced(function: Any) -> Any:
        return jax.eval_shape(lambda p, b: function(p, b), params, batch)

    ids, table = jnp.arange(3), jnp.ones((5, 2))
    image, kernel = jnp.ones((2, 4, 4, 1)), jnp.ones((3, 3, 1, 2))
    return {
        "per_example_grads": Call(jgd.per_example_grads, {"loss_fn": _loss}, traced),
        "clipped_grad": Call(jgd.clipped_grad, {"loss_fn": _loss, "max_norm": 1.0}, traced),
        "clipped_value_and_grad": Call(
            gradients.clipped_value_and_grad, {"loss_fn": _loss, "max_norm": 1.0}, traced
        ),
        "reduce_per_example": Call(
            gradients.reduce_per_example, {"loss_fn": _loss, "reductions": {"mean": gradients.Mean()}}, traced
        ),
        "ClippedMean": Call(gradients.ClippedMean, {"max_norm": 1.0}),
        "ClippedSum": Call(gradients.ClippedSum, {"max_norm": 1.0}),
        "CosineToMean": Call(gradients.CosineToMean),
        "Norms": Call(gradients.Norms),
        "Variance": Call(gradients.Variance),
        "noise_scale": Call(jgd.noise_scale, {
            "small_squared_norm": 2.0, "big_squared_norm": 1.0, "small_batch": 4, "big_batch": 8}),
        "critical_batch_size": Call(
            gradients.critical_batch_size, {"batch_sizes": jnp.array([1.0, 2, 4]), "steps": jnp.array([9.0, 6, 4])}
        ),
        "el2n_scores": Call(gradients.el2n_scores, {"logits": jnp.ones((4, 3)), "labels": jnp.arange(4) % 3}),
        "grand_scores": Call(gradients.grand_scores, {"loss_fn": _loss, "params": params, "batch": batch}),
        "gradient_snr": Call(gradients.gradient_snr, {"mean": params, "variance": params}),
        "pad_batch": Call(gradients.pad_batch, {"batch": batch, "size": 10}),
        "per_example_noise_scale": Call(
            gradients.per_example_noise_scale, {"norms": jnp.ones(8), "mean_norm": jnp.ones(())}
        ),
        "private_grad": Call(
            gradients.private_grad, {"max_norm": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 8}
        ),
        "private_epsilon": Call(gradients.private_epsilon, {
            "noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 10, "delta": 1e-5, "accountant": "rdp"}),
        "probes.bias": Call(probes.bias, {"x": jnp.ones((2, 3)), "b": jnp.ones(3)}),
        "probes.dense": Call(probes.dense, {"x": jnp.ones((2, 3)), "w": jnp.ones((3, 4))}),
        "probes.conv": Call(probes.conv, {"x": image, "w": kernel}),
        "probes.embed": Call(probes.embed, {"ids": ids, "table": table}),
        "probes.scale": Call(probes.scale, {"x": jnp.ones((2, 3)), "gain": jnp.ones(3)}),
        "probes.norms": Call(probes.norms, {"losses_fn": _losses}, traced),
        "probes.dot_with_mean": Call(probes.dot_with_mean, {"losses_fn": _losses}, traced),
        "probes.clipped_grad": Call(probes.clipped_grad, {"losses_fn": _losses, "max_norm": 1.0}, traced),
        "probes.clipped_value_and_grad": Call(
            probes.clipped_value_and_grad, {"losses_fn": _losses, "max_norm": 1.0}, traced
        ),
        "probes.weighted_grad": Call(
            probes.weighted_grad, {"losses_fn": _losses, "weights_fn": lambda losses, norms: 1 / (1 + norms)}, traced
        ),
    }  # fmt: skip


def _minimizing() -> Mapping[str, Call]:
    methods = sys.modules["jgd.minimizers"]
    start = jnp.zeros(3)
    result = jgd.minimize(_bowl, start)

    def run(method: Any) -> Any:
        return jgd.minimize(_bowl, start, method=method, max_steps=3)

    def search(line_search: Any) -> Any:
        return jgd.minimize(_bowl, start, line_search=line_search, max_steps=3)

    rows = {
        "minimize": Call(jgd.minimize, {"fun": _bowl, "params": start, "max_steps": 3}, traced=True),
        "multi_start": Call(
            lambda fun, starts, max_steps=3: jgd.multi_start(fun, starts, max_steps=max_steps),
            {"fun": _bowl, "starts": jnp.zeros((2, 3))},
            traced=True,
        ),
        "explain": Call(methods.explain, {"result": result}),
        "linear_rate": Call(methods.linear_rate, {"result": result}),
        "stable_step": Call(methods.stable_step, {"result": result}),
        "HeavyBall": Call(methods.HeavyBall, {}, run, traced=True),
        "Polyak": Call(methods.Polyak, {}, run, traced=True),
        "FromOptimizer": Call(methods.FromOptimizer, {"optimizer": jgd.sgd(0.1)}, run, traced=True),
    }
    for name in ("BFGS", "BarzilaiBorwein", "ConjugateGradient", "GradientDescent", "LBFGS", "LBFGSB", "Nesterov",
                 "NewtonCG", "TrustRegion", "ProjectedGradient", "ExactDescent"):  # fmt: skip
        rows[name] = Call(getattr(methods, name), {}, run, traced=True)
    for name in ("GaussNewton", "LevenbergMarquardt"):
        rows[name] = Call(
            getattr(methods, name),
            {},
            lambda m: jgd.minimize(lambda x: x - 1.0, start, method=m, max_steps=3),
            traced=True,
        )
    rows["Stepper"] = Call(methods.Stepper, {"fun": _bowl}, lambda stepper: stepper.init(start), traced=True)
    for name in ("Armijo", "StrongWolfe", "HagerZhang"):
        rows[name] = Call(getattr(methods, name), {}, search, traced=True)
    penalties = {"L1": {"strength": 0.1}, "ElasticNet": {"l1": 0.1, "l2": 0.1}, "NonNegativeL1": {"strength": 0.1},
                 "GroupLasso": {"strength": 0.1}, "Indicator": {"projection": lambda x: x}}  # fmt: skip
    for name, given in penalties.items():
        rows[name] = Call(getattr(methods, name), given, lambda p: run(methods.ProximalGradient(p)), traced=True)
    rows["ProximalGradient"] = Call(methods.ProximalGradient, {"penalty": methods.L1(0.1)}, run, traced=True)
    rows["MirrorDescent"] = Call(
        methods.MirrorDescent, {}, lambda m: jgd.minimize(_bowl, jnp.ones(3) / 3, method=m, max_steps=3), traced=True
    )
    return rows


def _schedules() -> Mapping[str, Call]:
    given = {
        "ademamix_alpha": {"alpha": 5.0, "warmup_steps": 10},
        "ademamix_b3": {"b1": 0.9, "b3": 0.999, "warmup_steps": 10},
        "cosine_restarts_schedule": {"peak_value": 1.0, "period": 10},
        "inverse_sqrt_schedule": {"peak_value": 1.0, "warmup_steps": 10},
        "trapezoid_schedule": {"peak_value": 1.0, "warmup_steps": 5, "stable_steps": 5, "decay_steps": 5},
        "warmup_stable_decay_schedule": {"peak_value": 1.0, "warmup_steps": 5, "stable_steps": 5, "decay_steps": 5},
        "yolo_schedule": {"lr0": 0.1, "epochs": 10, "steps_per_epoch": 5},
    }
    rows = {name: Call(getattr(jgd.schedules, name), g, lambda schedule: schedule(3)) for name, g in given.items()}
    check = Call(jgd.schedules.check_schedule, {"schedule": jgd.schedules.constant_schedule(0.1), "steps": 4})
    return rows | {"check_schedule": check}


def _for_authors() -> Mapping[str, Call]:
    import optax

    sgd, params = jgd.sgd(0.1), _params()
    theirs = optax.adam(0.1)
    adam = jgd.adam(0.1)
    states = {"optax_state": theirs.init(params), "jgd_state": adam.init(params)}
    testing = jgd.testing
    recorded = testing.record_trace(sgd)
    rows = {
        "testing.record_trace": Call(testing.record_trace, {"optimizer": sgd}),
        "testing.check_trace": Call(testing.check_trace, {"optimizer": sgd, "recorded": recorded}),
        "testing.check_per_example": Call(
            testing.check_per_example, {"losses_fn": _losses, "params": params, "batch": _batch()}
        ),
        "compat.lift": Call(
            lambda factory, static=(): jgd.compat.optax.lift(factory, 0.1, static=static), {"factory": optax.adam}
        ),
        "compat.from_optax_state": Call(jgd.compat.optax.from_optax_state, states),
        "compat.to_optax_state": Call(jgd.compat.optax.to_optax_state, states),
    }  # fmt: skip
    for name in ("abstract_init", "integer_leaves", "state_types", "one_trace"):
        rows[f"testing.check_{name}"] = Call(getattr(testing, f"check_{name}"), {"optimizer": sgd})
    return rows


#: What makes the rows of each part of the library. Each is handed a folder for files.
PARTS: dict[str, Callable[[pathlib.Path], Mapping[str, Call]]] = {
    "factories": lambda folder: dict(_factories()),
    "transforms": lambda folder: _transforms(),
    "states": lambda folder: _states(),
    "schedules": lambda folder: _schedules(),
    "gradients": lambda folder: _gradients(),
    "minimizing": lambda folder: _minimizing(),
    "training": _training,
    "for authors": lambda folder: _for_authors(),
}


def calls(folder: pathlib.Path) -> dict[str, Call]:
    """A row a public call. `folder` is a place for files."""
    return {name: call for rows in PARTS.values() for name, call in rows(folder).items()}


def each(rows: Mapping[str, Call]) -> Iterator[tuple[str, Call, str, str]]:
    """All nonsense for some rows: the name, the call, the argument that is wrong and the kind of what stands for it."""
    for name, call in rows.items():
        for parameter in call.parameters():
            for kind in VALUES:
                yield name, call, parameter, kind


def raised_by_jgd(error: BaseException) -> bool:
    """Whether a line of jgd's raised it, `raise ...` and not an operation that failed; or the user's own function."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if any(frame.f_code in USERS for frame, _ in frames):
        return True  # in the user's own function, on what it was handed
    if not isinstance(error, TypeError | ValueError | RuntimeError | OSError | AssertionError):
        return False  # no type that jgd raises
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(ROOT) and linecache.getline(last.filename, last.lineno or 0).strip()[:5] == "raise"


def _run(call: Call, changed: Mapping[str, Any]) -> None:
    _CALLS.clear()
    result = call.call(*call.positional, **{**call.given, **changed})
    if call.then is not None:
        call.then(result)


def answer(call: Call, changed: Mapping[str, Any]) -> BaseException | None:
    """None where it is a result or jgd's own error; else the error that came from somewhere else."""
    try:
        out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with out, err, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning is no error; the suite makes it one
            if call.traced:
                jax.eval_shape(lambda: _run(call, changed))
            else:
                _run(call, changed)
    except Exception as error:
        return None if raised_by_jgd(error) else error
    return None


def main() -> None:
    """All of it, as a list of what jgd does not answer: `python tests/nonsense.py [name ...]`."""
    import os

    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        rows = calls(pathlib.Path(place))
        wanted, tried, bad = [name for name in sys.argv[1:] if name != "-t"], 0, 0
        for name, call in rows.items():
            if wanted and name not in wanted:
                continue
            start = time.process_time()
            right = answer(call, {})
            if right is not None:
                print("A VALID CALL FAILS", name, repr(right)[:300])
                traceback.print_exception(right)
            for parameter in call.parameters():
                for kind, value in VALUES.items():
                    tried += 1
                    error = answer(call, {parameter: value})
                    if error is not None:
                        bad += 1
                        inner = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(ROOT)]
                        at = f"{inner[-1].filename[len(ROOT) + 1 :]}:{inner[-1].lineno}" if inner else "?"
                        text = str(error).replace("\n", " ")[:110]
                        print(f"{name}({parameter}={kind}): {type(error).__name__}: {text} [{at}]", flush=True)
            if "-t" in sys.argv:
                print(name, len(call.parameters()) * len(VALUES), f"{time.process_time() - start:.1f} s", flush=True)
        print(f"{bad} of {tried}")


if __name__ == "__main__":
    main()
