"""Rules that optax and optax.contrib have, against them."""

import optax
from rows import Row, same

import jgd

_REAL = {"learning_rate": 0.02, "b1": 0.85, "b2": 0.97}
_WITH_VALUE = {"extra": ("value",)}

ROWS = [
    same("adam", jgd.adam, _REAL | {"eps": 1e-5, "eps_root": 1e-9}),
    same("nadam", jgd.nadam, _REAL | {"eps": 1e-5}),
    same("adamw", jgd.adamw, _REAL | {"weight_decay": 0.1}),
    same("nadamw", jgd.nadamw, _REAL | {"weight_decay": 0.1}),
    same("amsgrad", jgd.amsgrad, _REAL),
    same("lion", jgd.lion, _REAL | {"weight_decay": 0.1}),
    same("adabelief", jgd.adabelief, _REAL),
    same("adabelief_nesterov", jgd.adabelief, _REAL | {"nesterov": True}, factory="adabelief"),
    same("adadelta", jgd.adadelta, {"learning_rate": 3.0, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.02}),
    # optax computes the decay of the second moment in float32.
    same("adafactor", jgd.adafactor, {"learning_rate": 0.05, "min_dim_size_to_factor": 3, "decay_rate": 0.7,
         "weight_decay_rate": 0.01, "clipping_threshold": 0.8, "eps": 1e-8}, tolerance=1e-7),
    same("adafactor_momentum", jgd.adafactor, {"learning_rate": 0.05, "min_dim_size_to_factor": 3, "momentum": 0.8,
         "multiply_by_parameter_scale": False, "clipping_threshold": None, "dtype_momentum": "float64"},
         factory="adafactor", tolerance=1e-7),
    same("adagrad", jgd.adagrad, {"learning_rate": 0.3, "initial_accumulator_value": 0.2, "eps": 1e-5}),
    same("adamax", jgd.adamax, _REAL),
    same("adamaxw", jgd.adamaxw, _REAL | {"weight_decay": 0.1}),
    same("adan", jgd.adan, _REAL | {"b3": 0.95, "weight_decay": 0.1}),
    same("fromage", jgd.fromage, {"learning_rate": 0.03, "min_norm": 1e-3}),
    same("lamb", jgd.lamb, _REAL | {"weight_decay": 0.1}),
    same("lars", jgd.lars, {"learning_rate": 1.5, "weight_decay": 0.05, "trust_coefficient": 0.02, "eps": 1e-4,
         "momentum": 0.8, "nesterov": True}),
    same("lbfgs", jgd.lbfgs, {"learning_rate": 0.02, "memory_size": 3, "linesearch": None}),
    Row("lbfgs_zoom", lambda: jgd.lbfgs(memory_size=4), "optax", "optax:lbfgs", {"memory_size": 4},
        how="optax", extra=("value", "grad", "value_fn"), tolerance=1e-6),
    same("noisy_sgd", jgd.noisy_sgd, {"learning_rate": 0.05, "eta": 0.1, "gamma": 0.5, "key": 3}),
    same("novograd", jgd.novograd, _REAL | {"b2": 0.4, "weight_decay": 0.05}),
    same("optimistic_gradient_descent", jgd.optimistic_gradient_descent,
         {"learning_rate": 0.05, "alpha": 0.7, "beta": 0.3}),
    same("optimistic_adam_v2", jgd.optimistic_adam_v2, _REAL | {"alpha": 0.9, "beta": 0.6}),
    same("polyak_sgd", jgd.polyak_sgd, {"max_learning_rate": 0.5, "scaling": 0.7, "f_min": -20.0}, **_WITH_VALUE),
    same("polyak_sgd_plus", jgd.polyak_sgd, {"max_learning_rate": 0.5, "variant": "sps+", "f_min": -1.0},
         factory="polyak_sgd", **_WITH_VALUE),
    same("radam", jgd.radam, _REAL | {"threshold": 4.5}),
    same("radam_nesterov", jgd.radam, _REAL | {"nesterov": True}, factory="radam"),
    same("rmsprop", jgd.rmsprop, {"learning_rate": 0.02, "decay": 0.85, "eps": 1e-4, "initial_scale": 0.1}),
    same("rmsprop_centered", jgd.rmsprop, {"learning_rate": 0.02, "decay": 0.85, "eps": 1e-3, "centered": True,
         "momentum": 0.7, "nesterov": True, "eps_in_sqrt": False}, factory="rmsprop"),
    same("rmsprop_corrected", jgd.rmsprop, {"learning_rate": 0.02, "decay": 0.85, "bias_correction": True},
         factory="rmsprop"),
    same("rprop", jgd.rprop, {"learning_rate": 0.02, "eta_minus": 0.4, "eta_plus": 1.3, "max_step_size": 0.2}),
    same("sign_sgd", jgd.sign_sgd, {"learning_rate": 0.02}),
    same("signum", jgd.signum, {"learning_rate": 0.02, "beta": 0.8}),
    same("sm3", jgd.sm3, {"learning_rate": 0.2, "momentum": 0.8}, leaves=("kernel", "matrix", "vector", "wide")),
    same("yogi", jgd.yogi, _REAL | {"eps": 1e-2}),
    same("acprop", jgd.acprop, _REAL | {"weight_decay": 0.1, "eps": 1e-4}, contrib=True),
    same("ademamix", jgd.ademamix, _REAL | {"b3": 0.995, "alpha": 2.0, "weight_decay": 0.1}, contrib=True),
    same("simplified_ademamix", jgd.simplified_ademamix, _REAL | {"learning_rate": 0.002, "alpha": 2.0}, contrib=True),
    same("adopt", jgd.adopt, _REAL, contrib=True),
    same("adopt_nesterov", jgd.adopt, _REAL | {"nesterov": True, "use_clipping": False}, contrib=True, factory="adopt"),
    same("cocob", jgd.cocob, {"learning_rate": 0.7, "alpha": 30.0, "weight_decay": 0.05}, contrib=True),
    same("dadapt_adamw", jgd.dadapt_adamw, {"learning_rate": 0.9, "betas": (0.85, 0.97), "estim_lr0": 1e-3,
         "weight_decay": 0.1}, contrib=True),
    same("dog", jgd.dog, {"learning_rate": 0.9, "init_step": ("heuristic", 1e-2), "weight_decay": 0.05}, contrib=True),
    same("dog_learning_rate", jgd.dog, {"init_step": ("learning_rate", 0.05)}, contrib=True, factory="dog"),
    same("dowg", jgd.dowg, {"learning_rate": 0.9, "init_estim_sq_dist": 1e-2, "weight_decay": 0.05}, contrib=True),
    Row("ldog", lambda: jgd.ldog(0.9, 1e-2), "optax", "golden.optax_rules:ldog", {}, how="optax",
        leaves=("kernel", "matrix", "vector", "wide")),
    same("madgrad", jgd.madgrad, {"learning_rate": 0.05, "momentum": 0.8, "weight_decay": 0.02}, contrib=True,
         tolerance=1e-7),  # optax weighs gradients by a root taken in float32
    same("momo", jgd.momo, {"learning_rate": 0.7, "beta": 0.8, "lower_bound": -30.0, "weight_decay": 0.05},
         contrib=True, **_WITH_VALUE),
    same("momo_adaptive", jgd.momo, {"learning_rate": 0.7, "lower_bound": -60.0, "adapt_lower_bound": True},
         contrib=True, factory="momo", **_WITH_VALUE),
    same("momo_adam", jgd.momo_adam, _REAL | {"lower_bound": -30.0, "weight_decay": 0.05}, contrib=True, **_WITH_VALUE),
    same("momo_adam_adaptive", jgd.momo_adam, _REAL | {"lower_bound": -60.0, "adapt_lower_bound": True}, contrib=True,
         factory="momo_adam", **_WITH_VALUE),
    same("prodigy", jgd.prodigy, {"learning_rate": 0.9, "betas": (0.85, 0.97), "estim_lr0": 1e-3,
         "weight_decay": 0.05}, contrib=True),
    same("prodigy_safeguard", jgd.prodigy, {"estim_lr0": 1e-3, "safeguard_warmup": True, "beta3": 0.95}, contrib=True,
         factory="prodigy"),
    Row("sophia", lambda: sophia(jgd.sophia), "optax", "golden.optax_rules:sophia", how="optax", extra=("obj_fn",)),
    # The SVD is taken in float32, and not by the same routine in every release of jaxlib.
    same("galore", jgd.galore, {"learning_rate": 0.02, "rank": 2, "update_proj_gap": 7, "scale": 0.5,
         "weight_decay": 0.1}, contrib=True, tolerance=1e-5),
]  # fmt: skip


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
