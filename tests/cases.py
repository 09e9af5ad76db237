"""All that the tests know of each rule and wrapper: a row each, and every test that runs over rules reads these.

Golden traces are of the authors' own packages and repositories, of optax and of torch (`reference/make.py` runs them).
A new rule gets its row here. The classes of `rows.py` say what the columns mean.
"""

import formulas
import optax
from rows import Case, Formula, Rule, Trace, Wrapper, of_torch, same
from runners_muon import handed_basis
from runners_preconditioned import shared_probe

import jgd

# Settings that several rows share.
_RATE = (1e-4, 0.1)
# Down to 1 - b = 0.002 the rounding of a decay rate to float32, 3e-8, moves its complement by 1.5e-5 at most: this is
# the 2e-5 asked for. (The complement of the factory's own number is kept exact, so less is to be seen.)
_DECAY = (0.0, 0.998)
_ADAM_RANGES = {"learning_rate": _RATE, "b1": _DECAY, "b2": _DECAY, "eps": (1e-8, 1e-3)}
_ADAM = {"learning_rate": 0.02, "b1": 0.85, "b2": 0.98, "eps": 1e-5}
_OURS = {"learning_rate": 0.02, "b1": 0.85, "b2": 0.97}
_BETAS = {"lr": 0.02, "betas": (0.85, 0.97)}
_WITH_VALUE = {"extra": ("value",)}
_VECTORS = ("kernel", "matrix", "vector", "wide")
_SGD = {"inner": "torch.optim:SGD", "inner_arguments": {"lr": 0.05, "momentum": 0.8}}
_TRAINED = {"options": {"modes": True}}
_READ = {"how": "optax", "evaluated": True, "options": {"read": "schedule_free_eval_params"}}
_MARS = {"clone": "MARS", "commit": "4831e28"}
# Its author's class stands in a training script of modded-nanogpt; the clone is a file with that class alone.
_EMA_NESTEROV = _SGD | {"clone": "ema_nesterov", "commit": "f411b3d"}
_BASE = "algorithms.target_setting_algorithms"
_PARTS = ("cosine_warmup", "data_selection", "get_batch_size", "pytorch_submission_base")
_ALGOPERF = ("algoperf", "algorithms", _BASE, *(f"{_BASE}.{part}" for part in _PARTS))


def _schedule_free_adamw():
    return jgd.schedule_free_adamw(
        0.03, warmup_steps=10, b1=0.85, b2=0.97, weight_decay=0.1, weight_lr_power=1.5, r=0.7, like="author"
    )


_THEIR_SCHEDULE_FREE = {"lr": 0.03, "betas": (0.85, 0.97), "weight_decay": 0.1, "warmup_steps": 10,
                        "weight_lr_power": 1.5, "r": 0.7}  # fmt: skip


_LAPROP = {"clone": "LaProp-Optimizer", "commit": "a419916"}
_SGD_SAI = {"clone": "SGD_SaI", "commit": "e213080"}
_ADAGRAD_NORM = {"clone": "pytorch", "commit": "6c098b4", "joined": True}  # of xwuShirley
_FIRST = {"b1": 0.85, "b2": 0.98, "eps": 1e-6}
_TORCH_FIRST = {"lr": 0.03, "betas": (0.85, 0.98), "eps": 1e-6}


_FIRST_BOUND = "lower_bound is where a slot starts; the formula reads it where it adapts"


def _falling(count):
    return 0.05 / (1 + 0.1 * count)


def _clone(name, ours, theirs, arguments, options, **more):
    """A trace whose reference comes as a clone; torch is the distribution that it runs on."""
    return Trace(name, ours, "torch", theirs, arguments, how="torch_as", options=options, **more)


def _laprop(name, ours, theirs, **options):
    settings = {"learning_rate": 0.03} | _FIRST | ours
    return _clone(name, lambda: jgd.laprop(**settings), "laprop:LaProp", _TORCH_FIRST | theirs, _LAPROP | options)


# Muon and its relatives: the references round to bfloat16 within the Newton-Schulz iteration. Most rows are of
# references without that rounding (`how="matrices"`), where all digits must agree; those that are `rounded` show how
# near `ns_dtype="bfloat16"` comes.
_PLAIN = ("matrix", "wide")
_OTHERS = ("scalar", "vector")
_LEAVES = _PLAIN + _OTHERS
_AXES = {"muon_weight_dimension_numbers": "torch"}
_HALF = 2e-2  # bfloat16 keeps eight bits, and the order in which the references round is not ours

_KELLER = {"learning_rate": 0.02, "beta": 0.9, "eps": 1e-7, "weight_decay": 0.1, "like": "keller", "adam_b1": 0.8,
           "adam_b2": 0.93, "adam_eps": 1e-10, "adam_weight_decay": 0.2, "adam_learning_rate": 0.02}  # fmt: skip
_ADAM_GROUP = {"leaves": _OTHERS, "use_muon": False, "lr": 0.02, "betas": (0.8, 0.93), "eps": 1e-10,
               "weight_decay": 0.2}  # fmt: skip
_MUON_GROUP = {"leaves": _PLAIN, "use_muon": True, "lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
_KELLER_REFERENCE = {"package": "muon-optimizer", "theirs": "muon:SingleDeviceMuonWithAuxAdam", "leaves": _LEAVES,
                     "how": "matrices"}  # fmt: skip
_GROUPS = {"groups": (_MUON_GROUP, _ADAM_GROUP)}

_TORCH_MUON = {"learning_rate": 0.03, "beta": 0.9, "eps": 1e-6, "weight_decay": 0.1, "like": "torch"} | _AXES
_TORCH_MUON_REFERENCE = {"package": "torch", "theirs": "torch.optim:Muon", "leaves": _PLAIN, "how": "matrices"}
_TORCH_MUON_ARGUMENTS = {"lr": 0.03, "momentum": 0.9, "eps": 1e-6, "weight_decay": 0.1}

_MOON = {"learning_rate": 0.03, "beta": 0.9, "eps": 1e-7, "weight_decay": 0.1, "like": "moonshot", "adam_b1": 0.8,
         "adam_b2": 0.93, "adam_eps": 1e-6, "adam_weight_decay": 0.1} | _AXES  # fmt: skip
_MOON_REFERENCE = {"package": "torch", "theirs": "toy_train:Muon", "leaves": _LEAVES, "how": "matrices"}
_MOON_ARGUMENTS = {"lr": 0.03, "wd": 0.1, "momentum": 0.9, "adamw_betas": (0.8, 0.93), "adamw_eps": 1e-6}
_MOON_OPTIONS = {"clone": "Moonlight", "folder": "examples", "commit": "c2ad5b2", "missing": ("loguru", "datasets"),
                 "split": {"muon_params": _PLAIN, "adamw_params": _OTHERS}}  # fmt: skip

_YOLO = {"learning_rate": 0.02, "momentum": 0.8, "weight_decay": 0.05, "muon": 0.3, "sgd": 0.7, "matrix_axes": "torch"}
_YOLO_REFERENCE = {"package": "ultralytics", "theirs": "ultralytics.optim.muon:MuSGD", "how": "matrices"}
_YOLO_GROUP = {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.05, "nesterov": True}
_YOLO_OPTIONS = {"bare": "ultralytics",
                 "groups": (_YOLO_GROUP | {"leaves": ("kernel", *_PLAIN), "use_muon": True},
                            _YOLO_GROUP | {"leaves": _OTHERS, "use_muon": False})}  # fmt: skip

_DION = {"package": "torch", "how": "matrices", "options": {"clone": "dion", "bare": "dion", "commit": "0a059a4"}}

_APOLLO = {"package": "apollo-torch", "theirs": "apollo_torch:APOLLOAdamW", "leaves": _LEAVES, "how": "matrices"}
_APOLLO_ARGUMENTS = {"lr": 0.02, "betas": (0.8, 0.93), "eps": 1e-5, "weight_decay": 0.1}
_APOLLO_OURS = {"learning_rate": 0.02, "b1": 0.8, "b2": 0.93, "eps": 1e-5, "weight_decay": 0.1, "matrix_axes": "torch"}


def _apollo_options(**group):
    low_rank = {"leaves": _PLAIN, "proj": "random", "proj_type": "std", **group}
    groups = (low_rank, {"leaves": _OTHERS})
    return {"groups": groups, "draws": ("apollo_torch.random_projector", "stable_randn")}


# A matrix for each axis: references that round to float32 inside are run with those parts in float64 (`how="double"`).
# The first gradient of some leaves has not full rank: the rest of its eigenvectors is decided by rounding. Rows with
# eigenvectors are for leaves, or axes, without that; the others start from the identity on both sides.
_SOAP = {"lr": 0.02, "betas": (0.9, 0.93), "eps": 1e-7, "weight_decay": 0.1, "precondition_frequency": 4}
_OUR_SOAP = {
    "learning_rate": 0.02,
    "b1": 0.9,
    "b2": 0.93,
    "eps": 1e-7,
    "weight_decay": 0.1,
    "precondition_frequency": 4,
}
_SOAP_CLONE = {"package": "torch", "theirs": "soap:SOAP", "how": "double",
               "options": {"clone": "SOAP", "commit": "a1e5535"}}  # fmt: skip
_FROM_IDENTITY = _SOAP_CLONE | {"options": _SOAP_CLONE["options"] | {"basis": "identity"}}

# The roots of a factor without full rank hang on eps: one well above rounding keeps the comparison sharp.
_EXPONENTS = dict.fromkeys(range(1, 5), 0.4)
_WIDE = {"factor_matrix_dtype": "torch.float64", "inv_factor_matrix_dtype": "torch.float64"}
_ROOTS = {"preconditioner_config": ("RootInvShampooPreconditionerConfig", _WIDE)}
_SHAMPOO = {"lr": 0.02, "betas": (0.8, 0.95), "epsilon": 1e-3, "weight_decay": 0.1, "precondition_frequency": 3,
            "start_preconditioning_step": 5} | _ROOTS  # fmt: skip
_AS_THEIRS = {"root": "eigh", "relative_eps": 0.0}
_OUR_SHAMPOO = _AS_THEIRS | {"learning_rate": 0.02, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.1,
                "precondition_frequency": 3, "start_preconditioning_step": 5}  # fmt: skip
_SHAMPOO_CLONE = {"package": "torch", "theirs": "distributed_shampoo:DistributedShampoo", "how": "double",
                  "options": {"clone": "optimizers", "commit": "f606606"}}  # fmt: skip

# Both sides are handed the same probes. The reference fails on scalars; its random balancing changes no step.
_KRON = {"lr": 0.01, "b1": 0.8, "weight_decay": 0.1, "precond_lr": 0.2, "precond_init_scale": 0.7,
         "preconditioner_update_probability": 1.0, "precond_dtype": "torch.float64"}  # fmt: skip
_OUR_KRON = {"learning_rate": 0.01, "b1": 0.8, "weight_decay": 0.1, "precond_lr": 0.2, "precond_init_scale": 0.7}
_KRON_TORCH = {"package": "kron-torch", "theirs": "kron_torch:Kron", "how": "double"}


# References that are no single factory.


def sophia(factory=optax.contrib.sophia):
    """Sophia with an estimator whose random numbers both sides share."""
    return factory(
        0.02,
        0.85,
        0.97,
        weight_decay=0.1,
        gamma=0.5,
        clip_threshold=0.8,
        update_interval=3,
        hessian_diagonal_fn=optax.contrib.hutchinson_estimator_diag_hessian(),
    )


def ldog():
    """L-DoG, out of the part that optax has of it."""
    scale = optax._src.transform.scale_by_distance_over_gradients
    return optax.chain(scale(reps_rel=1e-2, param_dtype="float64", global_scale=0.9), optax.scale(-1.0))


def mechanized():
    """optax's Mechanic around its Adam."""
    return optax.contrib.mechanize(optax.adam(0.5), s_init=1e-2)


def sharpness_aware():
    """optax's SAM in one call."""
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    return optax.contrib.sam(optax.sgd(0.05), climb, opaque_mode=True)


RULES = [
    # Gradient descent and momentum
    Rule("gradient_descent", untraced="one line", formulas=[
        Formula("gradient_descent", {"learning_rate": 0.03}, formulas.gradient_descent),
    ]),
    Rule("sgd", ranges={"learning_rate": _RATE, "momentum": _DECAY, "nesterov": bool}, median={"momentum": 0.9},
        formulas=[
        Formula("sgd", {"learning_rate": 0.03, "momentum": 0.8}, formulas.sgd, slots=("trace",)),
        Formula("sgd_nesterov", {"learning_rate": 0.03, "momentum": 0.8, "nesterov": True}, formulas.sgd,
            slots=("trace",)),
    ], traces=[
        same("sgd", jgd.sgd, {"learning_rate": 0.03, "momentum": 0.8, "nesterov": True}),
        Trace("sgd_torch", lambda: jgd.sgd(0.03, 0.8, True), "torch", "torch.optim:SGD",
            {"lr": 0.03, "momentum": 0.8, "nesterov": True}),
    ]),
    Rule("asgd", small="refused", skipped={"check_hyperparams": "t0 counts after a million steps"}, traces=[
        Trace("asgd", lambda: jgd.asgd(0.1, 0.05, 0.6, 10, 0.1), "torch", "torch.optim:ASGD",
            {"lr": 0.1, "lambd": 0.05, "alpha": 0.6, "t0": 10, "weight_decay": 0.1}, how="torch_as"),
        Trace("asgd_average", lambda: jgd.asgd(0.1, 0.05, 0.6, 10, 0.1), "torch", "torch.optim:ASGD",
            {"lr": 0.1, "lambd": 0.05, "alpha": 0.6, "t0": 10, "weight_decay": 0.1}, how="torch_as", evaluated=True,
            options={"read": "ax"}),
    ]),
    Rule("noisy_sgd", stands_for="random numbers",
        skipped={"check_low_precision": "draws other noise in another dtype"}, traces=[
        same("noisy_sgd", jgd.noisy_sgd, {"learning_rate": 0.05, "eta": 0.1, "gamma": 0.5, "key": 3}),
    ]),
    Rule("qhm", traces=[
        Trace("qhm", lambda: jgd.qhm(0.05, 0.9, 0.6, 0.1), "qhoptim", "qhoptim.pyt:QHM",
            {"lr": 0.05, "momentum": 0.9, "nu": 0.6, "weight_decay": 0.1}),
        Trace("qhm_direct", lambda: jgd.qhm(0.05, 0.9, 0.6, 0.1, decay_form="scaled"), "qhoptim", "qhoptim.pyt:QHM",
            {"lr": 0.05, "momentum": 0.9, "nu": 0.6, "weight_decay": 0.1, "weight_decay_type": "direct"}),
    ]),
    Rule("aggmo", traces=[
        Trace("aggmo", lambda: jgd.aggmo(0.03, (0.0, 0.8, 0.95), 0.1), "torch-optimizer", "torch_optimizer:AggMo",
            {"lr": 0.03, "betas": (0.0, 0.8, 0.95), "weight_decay": 0.1}),
    ]),
    Rule("sgdp", traces=[
        Trace("sgdp", lambda: jgd.sgdp(0.03, 0.8, 0.1, 0.1, delta=0.5, wd_ratio=0.3, channel_axis=0), "adamp",
            "adamp:SGDP",
            {"lr": 0.03, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.1, "delta": 0.5, "wd_ratio": 0.3}),
        Trace("sgdp_nesterov", lambda: jgd.sgdp(0.03, 0.8, delta=0.9, nesterov=True, channel_axis=0), "adamp",
            "adamp:SGDP", {"lr": 0.03, "momentum": 0.8, "delta": 0.9, "nesterov": True}),
    ]),
    Rule("sgd_sai", traces=[
        # theirs divides by epsilon where the gradient has one entry
        _clone("sgd_sai", lambda: jgd.sgd_sai(0.01, 0.8, 1e-6, 0.1), "sgd_sai.sgd_sai:SGD_sai",
            {"lr": 0.01, "momentum": 0.8, "eps": 1e-6, "weight_decay": 0.1}, _SGD_SAI, leaves=_VECTORS),
    ]),
    Rule("optimistic_gradient_descent", traces=[
        same("optimistic_gradient_descent", jgd.optimistic_gradient_descent,
            {"learning_rate": 0.05, "alpha": 0.7, "beta": 0.3}),
    ]),
    Rule("optimistic_adam_v2", traces=[
        same("optimistic_adam_v2", jgd.optimistic_adam_v2, _OURS | {"alpha": 0.9, "beta": 0.6}),
    ]),
    Rule("polyak_sgd", first=(), stands_for="needs the loss", needs=("value",), traces=[
        same("polyak_sgd", jgd.polyak_sgd, {"max_learning_rate": 0.5, "scaling": 0.7, "f_min": -20.0}, **_WITH_VALUE),
        same("polyak_sgd_plus", jgd.polyak_sgd, {"max_learning_rate": 0.5, "variant": "sps+", "f_min": -1.0},
            factory="polyak_sgd", **_WITH_VALUE),
    ]),
    Rule("momo", first=(), needs=("value",), skipped={"check_hyperparams": _FIRST_BOUND}, traces=[
        same("momo", jgd.momo, {"learning_rate": 0.7, "beta": 0.8, "lower_bound": -30.0, "weight_decay": 0.05},
            contrib=True, **_WITH_VALUE),
        same("momo_adaptive", jgd.momo, {"learning_rate": 0.7, "lower_bound": -60.0, "adapt_lower_bound": True},
            contrib=True, factory="momo", **_WITH_VALUE),
    ]),
    Rule("momo_adam", needs=("value",), skipped={"check_hyperparams": _FIRST_BOUND}, traces=[
        same("momo_adam", jgd.momo_adam, _OURS | {"lower_bound": -30.0, "weight_decay": 0.05}, contrib=True,
            **_WITH_VALUE),
        same("momo_adam_adaptive", jgd.momo_adam, _OURS | {"lower_bound": -60.0, "adapt_lower_bound": True},
            contrib=True, factory="momo_adam", **_WITH_VALUE),
    ]),
    # Signs and step sizes per parameter
    Rule("sign_sgd", traces=[
        same("sign_sgd", jgd.sign_sgd, {"learning_rate": 0.02}),
    ]),
    Rule("signum", traces=[
        same("signum", jgd.signum, {"learning_rate": 0.02, "beta": 0.8}),
    ]),
    Rule("lion", stands_for="refuses complex leaves",
        ranges={"learning_rate": _RATE, "b1": _DECAY, "b2": _DECAY, "weight_decay": (0.0, 0.1)},
        median={"b1": 0.9, "b2": 0.99, "weight_decay": 0.05}, formulas=[
        Formula("lion", {"learning_rate": 0.02, "b1": 0.85, "b2": 0.97, "weight_decay": 0.1}, formulas.lion,
            slots=("mu",), real_only=True),
    ], traces=[
        same("lion", jgd.lion, _OURS | {"weight_decay": 0.1}),
        Trace("lion_author", lambda: jgd.lion(**_OURS, weight_decay=0.1), "lion-pytorch", "lion_pytorch:Lion",
            _BETAS | {"weight_decay": 0.1}),
        Trace("lion_independent_decay", lambda: jgd.lion(**_OURS, weight_decay=0.01, decay_form="independent"),
            "pytorch_optimizer", "pytorch_optimizer:Lion", _BETAS | {"weight_decay": 0.01, "fixed_decay": True}),
    ]),
    Rule("rprop", has_rate=False, traces=[
        same("rprop", jgd.rprop, {"learning_rate": 0.02, "eta_minus": 0.4, "eta_plus": 1.3, "max_step_size": 0.2}),
        of_torch("rprop_torch", lambda: jgd.rprop(0.02, 0.4, 1.3, max_step_size=0.2, like="torch"), "Rprop",
            {"lr": 0.02, "etas": (0.4, 1.3), "step_sizes": (1e-6, 0.2)}),
    ]),
    # Adaptive, one number at a time
    Rule("adagrad", traces=[
        same("adagrad", jgd.adagrad, {"learning_rate": 0.3, "initial_accumulator_value": 0.2, "eps": 1e-5}),
        of_torch("adagrad_torch", lambda: jgd.adagrad(0.3, 0.2, 1e-5, like="torch", lr_decay=0.05), "Adagrad",
            {"lr": 0.3, "initial_accumulator_value": 0.2, "eps": 1e-5, "lr_decay": 0.05}),
    ]),
    Rule("adagrad_norm", traces=[
        # with all params as one row the authors' code has one accumulator, as the paper
        _clone("adagrad_norm", lambda: jgd.adagrad_norm(2.0, 0.3), "torch.optim.adagradnorm:Adagradnorm",
            {"lr": 2.0, "initial_accumulator_value": 0.3}, _ADAGRAD_NORM),
    ]),
    Rule("ftrl", small="refused", skipped={"check_huge_gradients": "sums of squares that overflow, subtracted"},
        traces=[
        Trace("ftrl", lambda: jgd.ftrl(0.1, -0.7, 0.2, 0.3, 0.05, 0.02, 0.5), "keras", "keras.optimizers:Ftrl",
            {"learning_rate": 0.1, "learning_rate_power": -0.7, "initial_accumulator_value": 0.2,
            "l1_regularization_strength": 0.3, "l2_regularization_strength": 0.05,
            "l2_shrinkage_regularization_strength": 0.02, "beta": 0.5}, how="keras"),
        Trace("ftrl_pytorch_optimizer",
            lambda: jgd.ftrl(0.1, initial_accumulator_value=0, l1=0.3, l2=0.05, offset=0.5), "pytorch_optimizer",
            "pytorch_optimizer:FTRL", {"lr": 0.1, "lambda_1": 0.3, "lambda_2": 0.1, "beta": 0.5}),
    ]),
    Rule("adadelta", first=(1.0,), traces=[
        same("adadelta", jgd.adadelta, {"learning_rate": 3.0, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.02}),
        of_torch("adadelta_torch", lambda: jgd.adadelta(3.0, rho=0.8, eps=1e-5, weight_decay=0.02), "Adadelta",
            {"lr": 3.0, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.02}),
    ]),
    Rule("rmsprop", traces=[
        same("rmsprop", jgd.rmsprop, {"learning_rate": 0.02, "decay": 0.85, "eps": 1e-4, "initial_scale": 0.1}),
        same("rmsprop_centered", jgd.rmsprop, {"learning_rate": 0.02, "decay": 0.85, "eps": 1e-3, "centered": True,
            "momentum": 0.7, "nesterov": True, "eps_in_sqrt": False}, factory="rmsprop"),
        same("rmsprop_corrected", jgd.rmsprop, {"learning_rate": 0.02, "decay": 0.85, "bias_correction": True},
            factory="rmsprop"),
        of_torch("rmsprop_torch", lambda: jgd.rmsprop(0.02, 0.85, 1e-4, momentum=0.7, like="torch"), "RMSprop",
            {"lr": 0.02, "alpha": 0.85, "eps": 1e-4, "momentum": 0.7}),
        of_torch("rmsprop_centered_torch", lambda: jgd.rmsprop(0.02, 0.85, 1e-3, centered=True, like="torch"),
            "RMSprop", {"lr": 0.02, "alpha": 0.85, "eps": 1e-3, "centered": True}),
    ]),
    Rule("adam", ranges=_ADAM_RANGES | {"eps_root": (0.0, 1e-6), "nesterov": bool}, median={"b1": 0.9, "b2": 0.999},
        formulas=[
        Formula("adam", _ADAM | {"eps_root": 1e-9}, formulas.adam, slots=("mu", "nu")),
    ], traces=[
        same("adam", jgd.adam, _OURS | {"eps": 1e-5, "eps_root": 1e-9}),
        of_torch("adam_torch", lambda: jgd.adam(**_OURS, eps=1e-5), "Adam", _BETAS | {"eps": 1e-5}),
    ]),
    Rule("adamw", stands_for="elementwise", ranges=_ADAM_RANGES | {"weight_decay": (0.0, 0.1), "nesterov": bool},
        median={"b1": 0.87, "b2": 0.99, "weight_decay": 0.05}, formulas=[
        Formula("adamw", _ADAM | {"weight_decay": 0.1}, formulas.adam, slots=("mu", "nu")),
    ], traces=[
        same("adamw", jgd.adamw, _OURS | {"weight_decay": 0.1}),
        of_torch("adam_coupled_torch", lambda: jgd.adamw(**_OURS, weight_decay=0.1, decay_form="coupled"), "Adam",
            _BETAS | {"weight_decay": 0.1}),
        of_torch("adamw_torch", lambda: jgd.adamw(**_OURS, weight_decay=0.1), "AdamW", _BETAS | {"weight_decay": 0.1}),
    ]),
    Rule("nadam", formulas=[
        Formula("nadam", _ADAM, formulas.nadam, slots=("mu", "nu")),
    ], traces=[
        same("nadam", jgd.nadam, _OURS | {"eps": 1e-5}),
        of_torch("nadam_torch", lambda: jgd.nadam(**_OURS, nesterov_form="torch", momentum_decay=0.01), "NAdam",
            _BETAS | {"momentum_decay": 0.01}, tolerance=1e-7),  # torch keeps the product of momenta in float32
    ]),
    Rule("nadamw", formulas=[
        Formula("nadamw", _ADAM | {"weight_decay": 0.1}, formulas.nadam, slots=("mu", "nu")),
    ], traces=[
        same("nadamw", jgd.nadamw, _OURS | {"weight_decay": 0.1}),
        Trace("nadamw_algoperf", lambda: jgd.nadamw(**_OURS, weight_decay=0.1, nesterov_form="algoperf"), "torch",
            "algorithms.target_setting_algorithms.pytorch_nadamw:NAdamW", _BETAS | {"weight_decay": 0.1},
            how="bare_clone", options={"clone": "algorithmic-efficiency", "commit": "2c90454", "missing": _ALGOPERF}),
    ]),
    Rule("adamax", traces=[
        same("adamax", jgd.adamax, _OURS),
        of_torch("adamax_torch", lambda: jgd.adamax(**_OURS), "Adamax", _BETAS),
    ]),
    Rule("adamaxw", traces=[
        same("adamaxw", jgd.adamaxw, _OURS | {"weight_decay": 0.1}),
    ]),
    Rule("amsgrad", ranges=_ADAM_RANGES, formulas=[
        Formula("amsgrad", _ADAM, formulas.amsgrad, slots=("mu", "nu", "nu_max")),
        Formula("amsgrad_as_published", _ADAM | {"bias_correction_mu": False, "bias_correction_nu": False},
            formulas.amsgrad, _ADAM | {"correct": False}, slots=("mu", "nu", "nu_max")),
    ], traces=[
        same("amsgrad", jgd.amsgrad, _OURS),
        of_torch("amsgrad_torch", lambda: jgd.amsgrad(**_OURS, like="torch"), "Adam", _BETAS | {"amsgrad": True}),
    ]),
    Rule("radam", traces=[
        same("radam", jgd.radam, _OURS | {"threshold": 4.5}),
        same("radam_nesterov", jgd.radam, _OURS | {"nesterov": True}, factory="radam"),
        of_torch("radam_torch", lambda: jgd.radam(**_OURS, eps=1e-4, like="torch"), "RAdam", _BETAS | {"eps": 1e-4}),
    ]),
    Rule("yogi", traces=[
        same("yogi", jgd.yogi, _OURS | {"eps": 1e-2}),
    ]),
    Rule("adabelief", traces=[
        same("adabelief", jgd.adabelief, _OURS),
        same("adabelief_nesterov", jgd.adabelief, _OURS | {"nesterov": True}, factory="adabelief"),
        Trace("adabelief_author", lambda: jgd.adabelief(**_OURS, weight_decay=0.1, eps=1e-8, eps_root=1e-8),
            "adabelief-pytorch", "adabelief_pytorch:AdaBelief",
            _BETAS | {"eps": 1e-8, "weight_decay": 0.1, "rectify": False, "print_change_log": False}),
    ]),
    Rule("acprop", small_tolerance={"int8": 0.6}, traces=[
        same("acprop", jgd.acprop, _OURS | {"weight_decay": 0.1, "eps": 1e-4}, contrib=True),
    ]),
    Rule("laprop", traces=[
        _laprop("laprop", {}, {}),
        _laprop("laprop_decayed", {"weight_decay": 0.02 / 0.03, "decay_form": "after"}, {"weight_decay": 0.02}),
        _laprop("laprop_schedule", {"learning_rate": _falling}, {}, rate=_falling),
        _laprop("laprop_amsgrad", {"amsgrad": True}, {"amsgrad": True}),
        _laprop("laprop_centered", {"centered": True}, {"centered": True}),
        _laprop("laprop_centered_amsgrad", *[{"centered": True, "amsgrad": True}] * 2),
    ]),
    Rule("adan", traces=[
        same("adan", jgd.adan, _OURS | {"b3": 0.95, "weight_decay": 0.1}),
        Trace("adan_author", lambda: jgd.adan(**_OURS, b3=0.95, weight_decay=0.1, eps_root=0.0, like="author"),
            "pytorch_optimizer", "pytorch_optimizer:Adan",
            {"lr": 0.02, "betas": (0.85, 0.97, 0.95), "weight_decay": 0.1}),
    ]),
    Rule("adopt", traces=[
        same("adopt", jgd.adopt, _OURS, contrib=True),
        same("adopt_nesterov", jgd.adopt, _OURS | {"nesterov": True, "use_clipping": False}, contrib=True,
            factory="adopt"),
        Trace("adopt_author", lambda: jgd.adopt(**_OURS), "torch", "adopt.adopt:ADOPT",
            _BETAS | {"clip_lambda": lambda step: step**0.25}, how="clone",
            options={"clone": "adopt/src", "commit": "6468572"}),
    ]),
    Rule("ademamix", traces=[
        same("ademamix", jgd.ademamix, _OURS | {"b3": 0.995, "alpha": 2.0, "weight_decay": 0.1}, contrib=True),
        Trace("ademamix_author", lambda: jgd.ademamix(**_OURS, b3=jgd.schedules.ademamix_b3(0.85, 0.995, 60),
            alpha=jgd.schedules.ademamix_alpha(3.0, 60), weight_decay=0.1), "torch", "pytorch.ademamix:AdEMAMix",
            {"lr": 0.02, "betas": (0.85, 0.97, 0.995), "alpha": 3.0, "beta3_warmup": 60, "alpha_warmup": 60,
            "weight_decay": 0.1}, how="clone", options={"clone": "ml-ademamix", "commit": "c3d73c0"}),
    ]),
    Rule("simplified_ademamix", traces=[
        same("simplified_ademamix", jgd.simplified_ademamix, _OURS | {"learning_rate": 0.002, "alpha": 2.0},
            contrib=True),
    ]),
    Rule("adam_atan2", traces=[
        Trace("adam_atan2", lambda: jgd.adam_atan2(0.03, 0.85, 0.98, 1.1, 0.7, weight_decay=0.1),
            "adam-atan2-pytorch", "adam_atan2_pytorch:AdamAtan2",
            {"lr": 0.03, "betas": (0.85, 0.98), "a": 1.1, "b": 0.7, "weight_decay": 0.1}),
    ]),
    Rule("qhadam", traces=[
        Trace("qhadam", lambda: jgd.qhadam(0.03, 0.85, 0.98, 0.7, 0.9, 1e-6, 0.1), "qhoptim", "qhoptim.pyt:QHAdam",
            _TORCH_FIRST | {"nus": (0.7, 0.9), "weight_decay": 0.1}),
        Trace("qhadamw", lambda: jgd.qhadam(0.03, 0.85, 0.98, 0.7, 0.9, 1e-6, 0.1, decay_form="scaled"), "qhoptim",
            "qhoptim.pyt:QHAdam",
            _TORCH_FIRST | {"nus": (0.7, 0.9), "weight_decay": 0.1, "decouple_weight_decay": True}),
    ]),
    Rule("stable_adamw", skipped={"check_huge_gradients": "a square over its overflown mean"}, traces=[
        Trace("stable_adamw", lambda: jgd.stable_adamw(0.03, **_FIRST, weight_decay=0.1), "torch-optimi",
            "optimi:StableAdamW", _TORCH_FIRST | {"weight_decay": 0.1}),
    ]),
    Rule("adamp", traces=[
        Trace("adamp", lambda: jgd.adamp(0.03, **_FIRST, weight_decay=0.1, delta=0.5, wd_ratio=0.3, channel_axis=0),
            "adamp", "adamp:AdamP", _TORCH_FIRST | {"weight_decay": 0.1, "delta": 0.5, "wd_ratio": 0.3}),
        Trace("adamp_nesterov", lambda: jgd.adamp(0.03, **_FIRST, delta=0.9, nesterov=True, channel_axis=0), "adamp",
            "adamp:AdamP", _TORCH_FIRST | {"delta": 0.9, "nesterov": True}),
    ]),
    # Layerwise
    Rule("lars", first=(1.0,), layout_tolerance=1e-4, traces=[
        same("lars", jgd.lars, {"learning_rate": 1.5, "weight_decay": 0.05, "trust_coefficient": 0.02, "eps": 1e-4,
            "momentum": 0.8, "nesterov": True}),
    ]),
    Rule("lamb", traces=[
        same("lamb", jgd.lamb, _OURS | {"weight_decay": 0.1}),
    ]),
    Rule("novograd", stands_for="a whole leaf", traces=[
        same("novograd", jgd.novograd, _OURS | {"b2": 0.4, "weight_decay": 0.05}),
    ]),
    Rule("fromage", traces=[
        same("fromage", jgd.fromage, {"learning_rate": 0.03, "min_norm": 1e-3}),
    ]),
    Rule("madgrad", small="refused", optax_rounds=1e-8, traces=[
        same("madgrad", jgd.madgrad, {"learning_rate": 0.05, "momentum": 0.8, "weight_decay": 0.02}, contrib=True,
            tolerance=1e-7),  # optax weighs gradients by a root taken in float32
        Trace("madgrad_author", lambda: jgd.madgrad(0.05, 0.8, 0.02), "madgrad", "madgrad:MADGRAD",
            {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.02}),
    ]),
    # Less memory
    Rule("adafactor", first=(0.1,), stands_for="factored", optax_rounds=1e-8, traces=[
        # optax computes the decay of the second moment in float32.
        same("adafactor", jgd.adafactor, {"learning_rate": 0.05, "min_dim_size_to_factor": 3, "decay_rate": 0.7,
            "weight_decay_rate": 0.01, "clipping_threshold": 0.8, "eps": 1e-8}, tolerance=1e-7),
        same("adafactor_momentum", jgd.adafactor, {"learning_rate": 0.05, "min_dim_size_to_factor": 3,
            "momentum": 0.8, "multiply_by_parameter_scale": False, "clipping_threshold": None,
            "dtype_momentum": "float64"}, factory="adafactor", tolerance=1e-7),
    ]),
    Rule("sm3", traces=[
        same("sm3", jgd.sm3, {"learning_rate": 0.2, "momentum": 0.8}, leaves=("kernel", "matrix", "vector", "wide")),
    ]),
    Rule("came", skipped={"check_huge_gradients": "a square that overflows, over another"}, traces=[
        Trace("came", lambda: jgd.came(0.01, 0.85, 0.98, 0.995, 1e-20, 1e-12, 0.8, weight_decay=0.1), "came-pytorch",
            "came_pytorch:CAME", {"lr": 0.01, "betas": (0.85, 0.98, 0.995), "eps": (1e-20, 1e-12),
            "clip_threshold": 0.8, "weight_decay": 0.1}),
    ]),
    Rule("adam_mini", stands_for="several rules", traces=[
        Trace("adam_mini", lambda: jgd.adam_mini(0.03, **_FIRST, weight_decay=0.1, mask={"vector": False,
            "kernel": True, "matrix": True, "scalar": True, "wide": True}, blocks={"kernel": "tensor",
            "matrix": jgd.AdamMiniBlocks(0, 2), "scalar": "tensor", "vector": "element",
            "wide": jgd.AdamMiniBlocks(0)}), "adam_mini", "adam_mini:Adam_mini",
            _TORCH_FIRST | {"weight_decay": 0.1, "dim": 6, "n_heads": 3, "verbose": False}, how="torch_as",
            options={"rename": {"matrix": "wq", "wide": "mlp", "vector": "bias"}}),
    ]),
    Rule("galore", stands_for="optax inside", small="inside",
        skipped={"check_integer_leaves": "the base optimizer is optax's"}, traces=[
        # The SVD is taken in float32, and not by the same routine in every release of jaxlib.
        same("galore", jgd.galore,
            {"learning_rate": 0.02, "rank": 2, "update_proj_gap": 7, "scale": 0.5, "weight_decay": 0.1}, contrib=True,
            tolerance=1e-5),
    ]),
    Rule("apollo", layout_tolerance=1e-3, traces=[
        Trace("apollo", lambda: jgd.apollo(rank=2, scale=2.0, update_proj_gap=30, **_APOLLO_OURS),
            arguments=_APOLLO_ARGUMENTS,
            options=_apollo_options(rank=2, scale=2.0, update_proj_gap=30, scale_type="channel"), **_APOLLO),
        Trace("apollo_mini", lambda: jgd.apollo(rank=1, scale=16.0, scale_type="tensor", **_APOLLO_OURS),
            arguments=_APOLLO_ARGUMENTS,
            options=_apollo_options(rank=1, scale=16.0, update_proj_gap=200, scale_type="tensor"), **_APOLLO),
    ]),
    # Matrices
    Rule("muon", stands_for="matrices", formulas=[
        Formula("muon", {"learning_rate": 0.02, "beta": 0.9, "eps": 1e-7, "weight_decay": 0.1}, formulas.muon,
            slots=("mu", "nu"), for_matrices=True),
    ], traces=[
        Trace("muon_keller", lambda: jgd.muon(**_KELLER, **_AXES), options=_GROUPS, **_KELLER_REFERENCE),
        Trace("muon_keller_bfloat16", lambda: jgd.muon(**_KELLER, **_AXES, ns_dtype="bfloat16"), tolerance=_HALF,
            options=_GROUPS | {"rounded": True}, **_KELLER_REFERENCE),
        Trace("muon_torch", lambda: jgd.muon(**_TORCH_MUON), arguments=_TORCH_MUON_ARGUMENTS, **_TORCH_MUON_REFERENCE),
        Trace("muon_torch_rms", lambda: jgd.muon(**_TORCH_MUON | {"ns_coeffs": (2.0, -1.5, 0.5), "ns_steps": 7},
            nesterov=False, consistent_rms=0.2), arguments=_TORCH_MUON_ARGUMENTS | {"nesterov": False,
            "ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 7, "adjust_lr_fn": "match_rms_adamw"},
            **_TORCH_MUON_REFERENCE),
        Trace("muon_torch_bfloat16", lambda: jgd.muon(**_TORCH_MUON, ns_dtype="bfloat16"),
            arguments=_TORCH_MUON_ARGUMENTS, tolerance=_HALF, options={"rounded": True}, **_TORCH_MUON_REFERENCE),
        Trace("muon_moonshot", lambda: jgd.muon(**_MOON), arguments=_MOON_ARGUMENTS, options=_MOON_OPTIONS,
            **_MOON_REFERENCE),
        Trace("muon_moonshot_bfloat16", lambda: jgd.muon(**_MOON, ns_dtype="bfloat16"), arguments=_MOON_ARGUMENTS,
            tolerance=_HALF, options=_MOON_OPTIONS | {"rounded": True}, **_MOON_REFERENCE),
        Trace("muon_polar_express",
            lambda: jgd.muon(0.03, "polar_express", beta=0.9, eps=0.0, weight_decay=0.1, like="moonshot", **_AXES),
            theirs="dion.muon:Muon", leaves=("kernel", *_PLAIN), arguments={"lr": 0.03, "mu": 0.9, "nesterov": True,
            "epsilon": 0.0, "weight_decay": 0.1, "flatten": True, "adjust_lr": "rms_norm"}, **_DION),
    ]),
    Rule("musgd", traces=[
        Trace("musgd", lambda: jgd.musgd(**_YOLO), arguments={"muon": 0.3, "sgd": 0.7}, options=_YOLO_OPTIONS,
            **_YOLO_REFERENCE),
        Trace("musgd_bfloat16", lambda: jgd.musgd(**_YOLO, ns_dtype="bfloat16"), arguments={"muon": 0.3, "sgd": 0.7},
            options=_YOLO_OPTIONS | {"rounded": True}, tolerance=_HALF, **_YOLO_REFERENCE),
    ]),
    Rule("normuon", traces=[
        Trace("normuon",
            lambda: jgd.normuon(**{k: v for k, v in _KELLER.items() if k != "like"}, b2=0.8, matrix_axes="torch"),
            "torch", "normuon:SingleDeviceNorMuonWithAuxAdam", leaves=_LEAVES, how="matrices",
            options={"clone": "NorMuon", "commit": "d45c9a4", "groups": (_MUON_GROUP | {"beta2": 0.8}, _ADAM_GROUP)}),
    ]),
    Rule("adamuon", traces=[
        Trace("adamuon", lambda: jgd.adamuon(0.02, 0.9, eps=1e-6, weight_decay=0.1, matrix_axes="torch"), "torch",
            "adamuon:AdaMuon",
            {"lr": 0.02, "momentum": 0.9, "eps": 1e-6, "weight_decay": 0.1, "rank": 0, "world_size": 1},
            leaves=_PLAIN, how="matrices",
            options={"clone": "AdaMuon", "folder": "gpt2/models/optimizers", "commit": "369f0b3"}),
    ]),
    Rule("dion", traces=[
        Trace("dion", lambda: handed_basis(jgd.dion(0.03, 0.5, 0.9, weight_decay=0.1, matrix_axes="torch")),
            theirs="dion.dion_reference:Dion", leaves=_PLAIN,
            arguments={"lr": 0.03, "mu": 0.9, "rank_fraction": 0.5, "weight_decay": 0.1}, **_DION),
        Trace("dion_two_iterations",
            lambda: handed_basis(jgd.dion(0.03, 0.6, 0.8, rank_multiple_of=2, power_iters=2, matrix_axes="torch")),
            theirs="dion.dion_reference:Dion", leaves=_PLAIN, arguments={"lr": 0.03, "mu": 0.8, "rank_fraction": 0.6,
            "rank_multiple_of": 2, "power_iters": 2, "qr_method": "qr"}, **_DION),
        Trace("dion_simple", lambda: handed_basis(jgd.dion(0.03, 0.75, 0.9, weight_decay=0.1, matrix_axes="torch")),
            theirs="dion.dion_simple:Dion", leaves=("matrix",),
            arguments={"lr": 0.03, "mu": 0.9, "rank": 3, "weight_decay": 0.1}, **_DION),
    ]),
    Rule("shampoo", dear=True, layout_tolerance=1e-3, traces=[
        Trace("shampoo",
            lambda: jgd.shampoo(0.05, 0.8, eps=1e-3, correct_bias=False, precondition_frequency=1, **_AS_THEIRS),
            arguments={"lr": 0.05, "betas": (0.8, 1.0), "epsilon": 1e-3, "use_bias_correction": False} | _ROOTS,
            **_SHAMPOO_CLONE),
        Trace("shampoo_sgd_graft", lambda: jgd.shampoo(**_OUR_SHAMPOO, block_size=8, graft="sgd"),
            arguments=_SHAMPOO | {"max_preconditioner_dim": 8, "grafting_config": ("SGDPreconditionerConfig", {})},
            **_SHAMPOO_CLONE),
        Trace("shampoo_adagrad_graft",
            lambda: jgd.shampoo(**_OUR_SHAMPOO, block_size=4, graft="adagrad", graft_eps=1e-6),
            arguments=_SHAMPOO | {"max_preconditioner_dim": 4, "grafting_config": ("AdaGradPreconditionerConfig",
            {"epsilon": 1e-6})}, **_SHAMPOO_CLONE),
        Trace("shampoo_rmsprop_graft",
            lambda: jgd.shampoo(**_OUR_SHAMPOO, block_size=3, merge_dims=False, graft="rmsprop", graft_eps=1e-6),
            arguments=_SHAMPOO | {"max_preconditioner_dim": 3, "distributed_config": ("SingleDeviceDistributedConfig",
            {"target_parameter_dimensionality": float("inf")}), "grafting_config": ("RMSpropPreconditionerConfig",
            {"epsilon": 1e-6})}, **_SHAMPOO_CLONE),
        Trace("shampoo_adam_graft", lambda: jgd.shampoo(**_OUR_SHAMPOO, block_size=5, graft="adam", graft_b2=0.97,
            graft_eps=1e-6, inverse_exponent_override=0.4, decay_form="coupled"),
            arguments=_SHAMPOO | {"max_preconditioner_dim": 5, "weight_decay_type": ("WeightDecayType",
            {"value": "L2"}), "grafting_config": ("AdamPreconditionerConfig", {"epsilon": 1e-6, "beta2": 0.97}),
            "preconditioner_config": ("RootInvShampooPreconditionerConfig",
            _WIDE | {"inverse_exponent_override": _EXPONENTS})}, **_SHAMPOO_CLONE),
    ]),
    Rule("soap", stands_for="staggered", dear=True,
        skipped={"check_huge_gradients": "factors of squares that overflow"}, traces=[
        Trace("soap", lambda: jgd.soap(**_OUR_SOAP, max_precond_dim=5, init_basis="eigh"),
            arguments=_SOAP | {"max_precond_dim": 5}, **_SOAP_CLONE),
        Trace("soap_merged",
            lambda: jgd.soap(**_OUR_SOAP, max_precond_dim=6, merge_dims=True, init_basis="eigh", shampoo_beta=0.8),
            arguments=_SOAP | {"max_precond_dim": 6, "merge_dims": True, "shampoo_beta": 0.8},
            leaves=("kernel", "vector"), **_SOAP_CLONE),
        Trace("soap_from_identity", lambda: jgd.soap(**_OUR_SOAP, precondition_1d=True, normalize_grads=True,
            correct_bias=False, init_basis="identity"),
            arguments=_SOAP | {"precondition_1d": True, "normalize_grads": True, "correct_bias": False},
            **_FROM_IDENTITY),
    ]),
    Rule("kron", dear=True, skipped={"check_huge_gradients": "factors of squares that overflow",
        "check_hyperparams": "it counts steps, and NaN steps are none"}, traces=[
        Trace("kron", lambda: jgd.kron(**_OUR_KRON, preconditioner_update_probability=1.0, probe=shared_probe),
            arguments=_KRON, leaves=_VECTORS, **_KRON_TORCH),
        Trace("kron_unmerged", lambda: jgd.kron(**_OUR_KRON, preconditioner_update_probability=0.3,
            probe=shared_probe, merge_dims=False, momentum_into_precond_update=False,
            memory_save_mode="smart_one_diag"), arguments=_KRON | {"preconditioner_update_probability": 0.3,
            "merge_dims": False, "momentum_into_precond_update": False, "memory_save_mode": "smart_one_diag"},
            leaves=_VECTORS, **_KRON_TORCH),
        Trace("kron_diagonal",
            lambda: jgd.kron(0.01, probe=shared_probe, max_size_triangular=5, memory_save_mode="one_diag"),
            arguments={"lr": 0.01, "max_size_triangular": 5, "memory_save_mode": "one_diag",
            "precond_dtype": "torch.float64"}, leaves=_VECTORS, **_KRON_TORCH),
    ]),
    # Second order
    Rule("sophia", dear=True, needs=("obj_fn",),
        skipped={"check_integer_leaves": "differentiates the loss by all params"}, traces=[
        Trace("sophia", lambda: sophia(jgd.sophia), "optax", "cases:sophia", how="optax", extra=("obj_fn",)),
    ]),
    Rule("lbfgs", first=(None,), stands_for="needs functions", dear=True, needs=("value", "grad", "value_fn"),
        small="refused", lifted={"linesearch": None},
        skipped={ "check_none_and_empty_leaves": "the line search is optax's",
        "check_integer_leaves": "the line search is optax's", }, traces=[
        same("lbfgs", jgd.lbfgs, {"learning_rate": 0.02, "memory_size": 3, "linesearch": None}),
        Trace("lbfgs_zoom", lambda: jgd.lbfgs(memory_size=4), "optax", "optax:lbfgs", {"memory_size": 4}, how="optax",
            extra=("value", "grad", "value_fn"), tolerance=1e-6, contracted=True),
    ]),
    # Learning rates that find themselves
    Rule("prodigy", first=(), stands_for="a whole tree", traces=[
        same("prodigy", jgd.prodigy,
            {"learning_rate": 0.9, "betas": (0.85, 0.97), "estim_lr0": 1e-3, "weight_decay": 0.05}, contrib=True),
        same("prodigy_safeguard", jgd.prodigy, {"estim_lr0": 1e-3, "safeguard_warmup": True, "beta3": 0.95},
            contrib=True, factory="prodigy"),
        Trace("prodigy_author",
            lambda: jgd.prodigy(0.9, (0.85, 0.97), estim_lr0=1e-3, weight_decay=0.05, bias_correction=False),
            "prodigyopt", "prodigyopt:Prodigy", {"lr": 0.9, "betas": (0.85, 0.97), "d0": 1e-3, "weight_decay": 0.05}),
        Trace("prodigy_author_growth", lambda: jgd.prodigy(0.9, estim_lr0=1e-2, growth_rate=1.02, estim_lr_coef=2.0),
            "prodigyopt", "prodigyopt:Prodigy",
            {"lr": 0.9, "d0": 1e-2, "growth_rate": 1.02, "d_coef": 2.0, "use_bias_correction": True}),
    ]),
    Rule("dadapt_adamw", first=(), traces=[
        same("dadapt_adamw", jgd.dadapt_adamw,
            {"learning_rate": 0.9, "betas": (0.85, 0.97), "estim_lr0": 1e-3, "weight_decay": 0.1}, contrib=True),
        Trace("dadapt_adamw_author", lambda: jgd.dadapt_adamw(0.9, (0.85, 0.97), estim_lr0=1e-3, weight_decay=0.1),
            "dadaptation", "dadaptation:DAdaptAdam", {"lr": 0.9, "betas": (0.85, 0.97), "d0": 1e-3,
            "weight_decay": 0.1, "decouple": True, "use_bias_correction": True}),
    ]),
    Rule("dog", first=(), small="refused", traces=[
        same("dog", jgd.dog, {"learning_rate": 0.9, "init_step": ("heuristic", 1e-2), "weight_decay": 0.05},
            contrib=True),
        same("dog_learning_rate", jgd.dog, {"init_step": ("learning_rate", 0.05)}, contrib=True, factory="dog"),
    ]),
    Rule("dowg", first=(), small="refused", traces=[
        same("dowg", jgd.dowg, {"learning_rate": 0.9, "init_estim_sq_dist": 1e-2, "weight_decay": 0.05}, contrib=True),
    ]),
    Rule("ldog", first=(), small="refused", traces=[
        Trace("ldog", lambda: jgd.ldog(0.9, 1e-2), "optax", "cases:ldog", {}, how="optax",
            leaves=("kernel", "matrix", "vector", "wide")),
    ]),
    Rule("cocob", first=(), small="refused", traces=[
        same("cocob", jgd.cocob, {"learning_rate": 0.7, "alpha": 30.0, "weight_decay": 0.05}, contrib=True),
    ]),
]  # fmt: skip

WRAPPERS = [
    Wrapper("cautious", jgd.cautious, traces=[
        Trace("cautious_lion_author", lambda: jgd.cautious(jgd.lion(**_OURS, weight_decay=0.0)), "torch",
            "c_lion:Lion", _BETAS, how="clone", options={"clone": "C-Optim", "commit": "2c0517c"}),
    ]),
    Wrapper("cautious_decay", lambda inner: jgd.cautious_decay(inner, 0.1)),
    Wrapper("mars", jgd.mars, traces=[
        Trace("mars_author", lambda: jgd.mars(jgd.adam(**_OURS), gamma=0.05, b1=0.85), "torch",
            "MARS.optimizers.mars:MARS", _BETAS | {"gamma": 0.05, "optimize_1d": True}, how="clone", options=_MARS),
        Trace("mars_lion_author", lambda: jgd.mars(jgd.signum(0.02, 0.85), gamma=0.05, b1=0.85), "torch",
            "MARS.optimizers.mars:MARS", _BETAS | {"gamma": 0.05, "optimize_1d": True, "mars_type": "mars-lion"},
            how="clone", options=_MARS),
    ]),
    Wrapper("hyperball", jgd.hyperball),
    Wrapper("clip_update_rms", jgd.clip_update_rms),
    Wrapper("adaptive_grad_clip", lambda inner: jgd.chain(jgd.adaptive_grad_clip(0.1), inner)),
    Wrapper("trust_ratio", jgd.trust_ratio),
    Wrapper("ema_nesterov", jgd.ema_nesterov, traces=[
        Trace("ema_nesterov", lambda: jgd.ema_nesterov(jgd.sgd(0.05, 0.8), 0.9, 0.4), "torch",
            "ema_nesterov:EMA_Nesterov", {"lookahead_stepsize": 0.4, "use_scheduled_lookahead_stepsize": False,
            "lookahead_ema": 0.9, "rest_steps": 1000}, how="stepper", options=_EMA_NESTEROV),
    ]),
    Wrapper("lookahead", lambda inner: jgd.lookahead(inner, 2, 0.5), traces=[
        Trace("lookahead", lambda: jgd.lookahead(jgd.sgd(0.05, 0.8), 4, 0.4), "pytorch_optimizer",
            "pytorch_optimizer:Lookahead", {"k": 4, "alpha": 0.4}, how="wrapped", options=_SGD),
    ]),
    Wrapper("schedule_free", lambda inner: jgd.schedule_free(inner, 0.01), traces=[
        Trace("schedule_free_sgd_author", lambda: jgd.schedule_free_sgd(0.2, 10, 0.8, 0.05, like="author"),
            "schedulefree", "schedulefree:SGDScheduleFree",
            {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.05, "warmup_steps": 10}, **_TRAINED),
        same("schedule_free_sgd", jgd.schedule_free_sgd, {"learning_rate": 0.2, "b1": 0.8, "weight_decay": 0.05},
            contrib=True),
        Trace("schedule_free_sgd_evaluated", lambda: jgd.schedule_free_sgd(0.2, b1=0.8), "optax",
            "optax.contrib:schedule_free_sgd", {"learning_rate": 0.2, "b1": 0.8}, **_READ),
        Trace("schedule_free_adamw_author", _schedule_free_adamw, "schedulefree", "schedulefree:AdamWScheduleFree",
            _THEIR_SCHEDULE_FREE, **_TRAINED),
        Trace("schedule_free_adamw_author_evaluated", _schedule_free_adamw, "schedulefree",
            "schedulefree:AdamWScheduleFree", _THEIR_SCHEDULE_FREE, evaluated=True, **_TRAINED),
        # The warm-up: optax divides the step's number, an integer, in float32.
        same("schedule_free_adamw", jgd.schedule_free_adamw, _OURS | {"warmup_steps": 10, "weight_decay": 0.1},
            contrib=True, contracted=True),
    ]),
    Wrapper("average_params", jgd.average_params),
    Wrapper("grams", jgd.grams, traces=[
        Trace("grams_author", lambda: jgd.grams(jgd.adam(**_OURS, eps=1e-14)), "torch", "grams.src.grams:Grams",
            _BETAS | {"eps": 1e-14}, how="clone", options={"clone": "Grams", "commit": "f91a375"}),
    ]),
    Wrapper("orthogonal_gradient", jgd.orthogonal_gradient, traces=[
        Trace("orthogonal_gradient", lambda: jgd.orthogonal_gradient(jgd.sgd(0.05, 0.8)), "pytorch_optimizer",
            "pytorch_optimizer:OrthoGrad", how="wrapped", options=_SGD, leaves=_VECTORS),
    ]),
    Wrapper("centralize", lambda inner: jgd.chain(jgd.centralize(), inner)),
    Wrapper("accumulate", lambda inner: jgd.accumulate(inner, 2)),
    Wrapper("skip_nonfinite", jgd.skip_nonfinite),
    Wrapper("groups", lambda inner: jgd.groups({"*": inner})),
    Wrapper("sam", traces=[
        Trace("sam", lambda: jgd.sam(jgd.sgd(0.05), jgd.chain(jgd.normalize(), jgd.sgd(0.1)), opaque_mode=True),
            "optax", "cases:sharpness_aware", how="optax", extra=("grad_fn",)),
    ]),
    Wrapper("mechanize", traces=[
        Trace("mechanize", lambda: jgd.mechanize(jgd.adam(0.5), s_init=1e-2), "optax", "cases:mechanized",
            how="optax"),
    ]),
]  # fmt: skip

CASES = [Case(rule, written) for rule in RULES for written in rule.formulas]
TRACES = [trace for row in (*RULES, *WRAPPERS) for trace in row.traces]
