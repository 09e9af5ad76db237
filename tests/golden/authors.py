"""Rules and wrappers against their authors' own packages, in the forms that differ from optax's."""

from rows import Row, same

import jgd

_BETAS = {"lr": 0.02, "betas": (0.85, 0.97)}
_OURS = {"learning_rate": 0.02, "b1": 0.85, "b2": 0.97}
_SGD = {"inner": "torch.optim:SGD", "inner_arguments": {"lr": 0.05, "momentum": 0.8}}
_TRAINED = {"options": {"modes": True}}
_READ = {"how": "optax", "evaluated": True, "options": {"read": "schedule_free_eval_params"}}
_MARS = {"clone": "MARS", "commit": "4831e28"}
# Its author's class stands in a training script of modded-nanogpt; the clone is a file with that class alone.
_EMA_NESTEROV = _SGD | {"clone": "ema_nesterov", "commit": "f411b3d"}
_BASE = "algorithms.target_setting_algorithms"
_PARTS = ("cosine_warmup", "data_selection", "get_batch_size", "pytorch_submission_base")
_ALGOPERF = ("algoperf", "algorithms", _BASE, *(f"{_BASE}.{part}" for part in _PARTS))
_VECTORS = ("kernel", "matrix", "vector", "wide")


def _schedule_free_adamw():
    return jgd.schedule_free_adamw(
        0.03, warmup_steps=10, b1=0.85, b2=0.97, weight_decay=0.1, weight_lr_power=1.5, r=0.7, like="author"
    )


_THEIR_SCHEDULE_FREE = {"lr": 0.03, "betas": (0.85, 0.97), "weight_decay": 0.1, "warmup_steps": 10,
                        "weight_lr_power": 1.5, "r": 0.7}  # fmt: skip

ROWS = [
    Row("schedule_free_adamw_author", _schedule_free_adamw, "schedulefree", "schedulefree:AdamWScheduleFree",
        _THEIR_SCHEDULE_FREE, **_TRAINED),
    Row("schedule_free_adamw_author_evaluated", _schedule_free_adamw, "schedulefree", "schedulefree:AdamWScheduleFree",
        _THEIR_SCHEDULE_FREE, evaluated=True, **_TRAINED),
    Row("schedule_free_sgd_author", lambda: jgd.schedule_free_sgd(0.2, 10, 0.8, 0.05, like="author"), "schedulefree",
        "schedulefree:SGDScheduleFree", {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.05, "warmup_steps": 10},
        **_TRAINED),
    same("schedule_free_adamw", jgd.schedule_free_adamw, _OURS | {"warmup_steps": 10, "weight_decay": 0.1},
         contrib=True),
    same("schedule_free_sgd", jgd.schedule_free_sgd, {"learning_rate": 0.2, "b1": 0.8, "weight_decay": 0.05},
         contrib=True),
    Row("schedule_free_sgd_evaluated", lambda: jgd.schedule_free_sgd(0.2, b1=0.8), "optax",
        "optax.contrib:schedule_free_sgd", {"learning_rate": 0.2, "b1": 0.8}, **_READ),
    Row("prodigy_author", lambda: jgd.prodigy(0.9, (0.85, 0.97), estim_lr0=1e-3, weight_decay=0.05,
        bias_correction=False), "prodigyopt", "prodigyopt:Prodigy",
        {"lr": 0.9, "betas": (0.85, 0.97), "d0": 1e-3, "weight_decay": 0.05}),
    Row("prodigy_author_growth", lambda: jgd.prodigy(0.9, estim_lr0=1e-2, growth_rate=1.02, estim_lr_coef=2.0),
        "prodigyopt", "prodigyopt:Prodigy",
        {"lr": 0.9, "d0": 1e-2, "growth_rate": 1.02, "d_coef": 2.0, "use_bias_correction": True}),
    Row("dadapt_adamw_author", lambda: jgd.dadapt_adamw(0.9, (0.85, 0.97), estim_lr0=1e-3, weight_decay=0.1),
        "dadaptation", "dadaptation:DAdaptAdam", {"lr": 0.9, "betas": (0.85, 0.97), "d0": 1e-3, "weight_decay": 0.1,
        "decouple": True, "use_bias_correction": True}),
    Row("lion_author", lambda: jgd.lion(**_OURS, weight_decay=0.1), "lion-pytorch", "lion_pytorch:Lion",
        _BETAS | {"weight_decay": 0.1}),
    Row("lion_independent_decay", lambda: jgd.lion(**_OURS, weight_decay=0.01, decay_form="independent"),
        "pytorch_optimizer", "pytorch_optimizer:Lion", _BETAS | {"weight_decay": 0.01, "fixed_decay": True}),
    Row("nadamw_algoperf", lambda: jgd.nadamw(**_OURS, weight_decay=0.1, nesterov_form="algoperf"), "torch",
        "algorithms.target_setting_algorithms.pytorch_nadamw:NAdamW", _BETAS | {"weight_decay": 0.1}, how="bare_clone",
        options={"clone": "algorithmic-efficiency", "commit": "2c90454", "missing": _ALGOPERF}),
    Row("madgrad_author", lambda: jgd.madgrad(0.05, 0.8, 0.02), "madgrad", "madgrad:MADGRAD",
        {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.02}),
    Row("adabelief_author", lambda: jgd.adabelief(**_OURS, weight_decay=0.1, eps=1e-8, eps_root=1e-8),
        "adabelief-pytorch", "adabelief_pytorch:AdaBelief", _BETAS | {"eps": 1e-8, "weight_decay": 0.1,
        "rectify": False, "print_change_log": False}),
    Row("adan_author", lambda: jgd.adan(**_OURS, b3=0.95, weight_decay=0.1, eps_root=0.0, like="author"),
        "pytorch_optimizer", "pytorch_optimizer:Adan", {"lr": 0.02, "betas": (0.85, 0.97, 0.95), "weight_decay": 0.1}),
    Row("grams_author", lambda: jgd.grams(jgd.adam(**_OURS, eps=1e-14)), "torch", "grams.src.grams:Grams",
        _BETAS | {"eps": 1e-14}, how="clone",
        options={"clone": "Grams", "commit": "f91a375"}),
    Row("cautious_lion_author", lambda: jgd.cautious(jgd.lion(**_OURS, weight_decay=0.0)), "torch", "c_lion:Lion",
        _BETAS, how="clone", options={"clone": "C-Optim", "commit": "2c0517c"}),
    Row("mars_author", lambda: jgd.mars(jgd.adam(**_OURS), gamma=0.05, b1=0.85), "torch", "MARS.optimizers.mars:MARS",
        _BETAS | {"gamma": 0.05, "optimize_1d": True}, how="clone", options=_MARS),
    Row("mars_lion_author", lambda: jgd.mars(jgd.signum(0.02, 0.85), gamma=0.05, b1=0.85), "torch",
        "MARS.optimizers.mars:MARS", _BETAS | {"gamma": 0.05, "optimize_1d": True, "mars_type": "mars-lion"},
        how="clone", options=_MARS),
    Row("lookahead", lambda: jgd.lookahead(jgd.sgd(0.05, 0.8), 4, 0.4), "pytorch_optimizer",
        "pytorch_optimizer:Lookahead", {"k": 4, "alpha": 0.4}, how="wrapped", options=_SGD),
    Row("orthogonal_gradient", lambda: jgd.orthogonal_gradient(jgd.sgd(0.05, 0.8)), "pytorch_optimizer",
        "pytorch_optimizer:OrthoGrad", how="wrapped", options=_SGD, leaves=_VECTORS),
    Row("ema_nesterov", lambda: jgd.ema_nesterov(jgd.sgd(0.05, 0.8), 0.9, 0.4), "torch", "ema_nesterov:EMA_Nesterov",
        {"lookahead_stepsize": 0.4, "use_scheduled_lookahead_stepsize": False, "lookahead_ema": 0.9,
         "rest_steps": 1000}, how="stepper", options=_EMA_NESTEROV),
    Row("sam", lambda: jgd.sam(jgd.sgd(0.05), jgd.chain(jgd.normalize(), jgd.sgd(0.1)), opaque_mode=True), "optax",
        "golden.authors:sharpness_aware", how="optax", extra=("grad_fn",)),
    Row("mechanize", lambda: jgd.mechanize(jgd.adam(0.5), s_init=1e-2), "optax", "golden.authors:mechanized",
        how="optax"),
    Row("ademamix_author", lambda: jgd.ademamix(**_OURS, b3=jgd.schedules.ademamix_b3(0.85, 0.995, 60),
        alpha=jgd.schedules.ademamix_alpha(3.0, 60), weight_decay=0.1), "torch", "pytorch.ademamix:AdEMAMix",
        {"lr": 0.02, "betas": (0.85, 0.97, 0.995), "alpha": 3.0, "beta3_warmup": 60, "alpha_warmup": 60,
         "weight_decay": 0.1}, how="clone", options={"clone": "ml-ademamix", "commit": "c3d73c0"}),
    Row("adopt_author", lambda: jgd.adopt(**_OURS), "torch", "adopt.adopt:ADOPT",
        _BETAS | {"clip_lambda": lambda step: step**0.25}, how="clone",
        options={"clone": "adopt/src", "commit": "6468572"}),
]  # fmt: skip


def mechanized():
    """optax's Mechanic around its Adam."""
    import optax

    return optax.contrib.mechanize(optax.adam(0.5), s_init=1e-2)


def sharpness_aware():
    """optax's SAM in one call."""
    import optax

    climb = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    return optax.contrib.sam(optax.sgd(0.05), climb, opaque_mode=True)
