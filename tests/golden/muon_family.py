"""Muon, its relatives, and other rules that look at matrices: Dion, APOLLO.

The references round to bfloat16 within the Newton-Schulz iteration. Most rows are of references without that rounding
(`how="matrices"`), where all digits must agree; those that are `rounded` show how near `ns_dtype="bfloat16"` comes.
"""

from rows import Row
from runners_muon import handed_basis

from jgd.rules._adamuon import adamuon
from jgd.rules._apollo import apollo
from jgd.rules._dion import dion
from jgd.rules._muon import muon
from jgd.rules._musgd import musgd
from jgd.rules._normuon import normuon

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

_TORCH = {"learning_rate": 0.03, "beta": 0.9, "eps": 1e-6, "weight_decay": 0.1, "like": "torch"} | _AXES
_TORCH_REFERENCE = {"package": "torch", "theirs": "torch.optim:Muon", "leaves": _PLAIN, "how": "matrices"}
_TORCH_ARGUMENTS = {"lr": 0.03, "momentum": 0.9, "eps": 1e-6, "weight_decay": 0.1}

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


ROWS = [
    Row("muon_keller", lambda: muon(**_KELLER, **_AXES), options=_GROUPS, **_KELLER_REFERENCE),
    Row("muon_keller_bfloat16", lambda: muon(**_KELLER, **_AXES, ns_dtype="bfloat16"), tolerance=_HALF,
        options=_GROUPS | {"rounded": True}, **_KELLER_REFERENCE),
    Row("muon_torch", lambda: muon(**_TORCH), arguments=_TORCH_ARGUMENTS, **_TORCH_REFERENCE),
    Row("muon_torch_rms", lambda: muon(**_TORCH | {"ns_coeffs": (2.0, -1.5, 0.5), "ns_steps": 7}, nesterov=False,
                                       consistent_rms=0.2),
        arguments=_TORCH_ARGUMENTS | {"nesterov": False, "ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 7,
                                      "adjust_lr_fn": "match_rms_adamw"}, **_TORCH_REFERENCE),
    Row("muon_torch_bfloat16", lambda: muon(**_TORCH, ns_dtype="bfloat16"), arguments=_TORCH_ARGUMENTS,
        tolerance=_HALF, options={"rounded": True}, **_TORCH_REFERENCE),
    Row("muon_moonshot", lambda: muon(**_MOON), arguments=_MOON_ARGUMENTS, options=_MOON_OPTIONS, **_MOON_REFERENCE),
    Row("muon_moonshot_bfloat16", lambda: muon(**_MOON, ns_dtype="bfloat16"), arguments=_MOON_ARGUMENTS,
        tolerance=_HALF, options=_MOON_OPTIONS | {"rounded": True}, **_MOON_REFERENCE),
    Row("muon_polar_express",
        lambda: muon(0.03, "polar_express", beta=0.9, eps=0.0, weight_decay=0.1, like="moonshot", **_AXES),
        theirs="dion.muon:Muon", leaves=("kernel", *_PLAIN),
        arguments={"lr": 0.03, "mu": 0.9, "nesterov": True, "epsilon": 0.0, "weight_decay": 0.1, "flatten": True,
                   "adjust_lr": "rms_norm"}, **_DION),
    Row("normuon", lambda: normuon(**{k: v for k, v in _KELLER.items() if k != "like"}, b2=0.8, matrix_axes="torch"),
        "torch", "normuon:SingleDeviceNorMuonWithAuxAdam", leaves=_LEAVES, how="matrices",
        options={"clone": "NorMuon", "commit": "d45c9a4", "groups": (_MUON_GROUP | {"beta2": 0.8}, _ADAM_GROUP)}),
    Row("adamuon", lambda: adamuon(0.02, 0.9, eps=1e-6, weight_decay=0.1, matrix_axes="torch"),
        "torch", "adamuon:AdaMuon", {"lr": 0.02, "momentum": 0.9, "eps": 1e-6, "weight_decay": 0.1, "rank": 0,
                                     "world_size": 1}, leaves=_PLAIN, how="matrices",
        options={"clone": "AdaMuon", "folder": "gpt2/models/optimizers", "commit": "369f0b3"}),
    Row("musgd", lambda: musgd(**_YOLO), arguments={"muon": 0.3, "sgd": 0.7}, options=_YOLO_OPTIONS,
        **_YOLO_REFERENCE),
    Row("musgd_bfloat16", lambda: musgd(**_YOLO, ns_dtype="bfloat16"), arguments={"muon": 0.3, "sgd": 0.7},
        options=_YOLO_OPTIONS | {"rounded": True}, tolerance=_HALF, **_YOLO_REFERENCE),
    Row("dion", lambda: handed_basis(dion(0.03, 0.5, 0.9, weight_decay=0.1, matrix_axes="torch")),
        theirs="dion.dion_reference:Dion", leaves=_PLAIN,
        arguments={"lr": 0.03, "mu": 0.9, "rank_fraction": 0.5, "weight_decay": 0.1}, **_DION),
    Row("dion_two_iterations",
        lambda: handed_basis(dion(0.03, 0.6, 0.8, rank_multiple_of=2, power_iters=2, matrix_axes="torch")),
        theirs="dion.dion_reference:Dion", leaves=_PLAIN,
        arguments={"lr": 0.03, "mu": 0.8, "rank_fraction": 0.6, "rank_multiple_of": 2, "power_iters": 2,
                   "qr_method": "qr"}, **_DION),
    Row("dion_simple", lambda: handed_basis(dion(0.03, 0.75, 0.9, weight_decay=0.1, matrix_axes="torch")),
        theirs="dion.dion_simple:Dion", leaves=("matrix",),
        arguments={"lr": 0.03, "mu": 0.9, "rank": 3, "weight_decay": 0.1}, **_DION),
    Row("apollo", lambda: apollo(rank=2, scale=2.0, update_proj_gap=30, **_APOLLO_OURS),
        arguments=_APOLLO_ARGUMENTS,
        options=_apollo_options(rank=2, scale=2.0, update_proj_gap=30, scale_type="channel"), **_APOLLO),
    Row("apollo_mini", lambda: apollo(rank=1, scale=16.0, scale_type="tensor", **_APOLLO_OURS),
        arguments=_APOLLO_ARGUMENTS,
        options=_apollo_options(rank=1, scale=16.0, update_proj_gap=200, scale_type="tensor"), **_APOLLO),
]  # fmt: skip
