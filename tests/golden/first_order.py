"""Variants of Adam and of momentum, each against its authors' package or repository."""

from rows import Row

from jgd.rules._adagrad_norm import adagrad_norm
from jgd.rules._adam_atan2 import adam_atan2
from jgd.rules._adam_mini import adam_mini
from jgd.rules._adam_mini_blocks import AdamMiniBlocks
from jgd.rules._adamp import adamp
from jgd.rules._aggmo import aggmo
from jgd.rules._asgd import asgd
from jgd.rules._came import came
from jgd.rules._ftrl import ftrl
from jgd.rules._laprop import laprop
from jgd.rules._qh import qhadam, qhm
from jgd.rules._sgd_sai import sgd_sai
from jgd.rules._sgdp import sgdp
from jgd.rules._stable_adamw import stable_adamw

LAPROP = {"clone": "LaProp-Optimizer", "commit": "a419916"}
SGD_SAI = {"clone": "SGD_SaI", "commit": "e213080"}
ADAGRAD_NORM = {"clone": "pytorch", "commit": "6c098b4", "joined": True}  # of xwuShirley
NO_SCALAR = ("kernel", "matrix", "vector", "wide")
_ADAM = {"b1": 0.85, "b2": 0.98, "eps": 1e-6}
_TORCH_ADAM = {"lr": 0.03, "betas": (0.85, 0.98), "eps": 1e-6}


def _falling(count):
    return 0.05 / (1 + 0.1 * count)


def _clone(name, ours, theirs, arguments, options, **more):
    """A row whose reference comes as a clone; torch is the distribution that it runs on."""
    return Row(name, ours, "torch", theirs, arguments, how="torch_as", options=options, **more)


def _laprop(name, ours, theirs, **options):
    settings = {"learning_rate": 0.03} | _ADAM | ours
    return _clone(name, lambda: laprop(**settings), "laprop:LaProp", _TORCH_ADAM | theirs, LAPROP | options)


ROWS = [
    _laprop("laprop", {}, {}),
    _laprop("laprop_decayed", {"weight_decay": 0.02 / 0.03, "decay_form": "after"}, {"weight_decay": 0.02}),
    _laprop("laprop_schedule", {"learning_rate": _falling}, {}, rate=_falling),
    _laprop("laprop_amsgrad", {"amsgrad": True}, {"amsgrad": True}),
    _laprop("laprop_centered", {"centered": True}, {"centered": True}),
    _laprop("laprop_centered_amsgrad", *[{"centered": True, "amsgrad": True}] * 2),
    Row("adam_atan2", lambda: adam_atan2(0.03, 0.85, 0.98, 1.1, 0.7, weight_decay=0.1), "adam-atan2-pytorch",
        "adam_atan2_pytorch:AdamAtan2",
        {"lr": 0.03, "betas": (0.85, 0.98), "a": 1.1, "b": 0.7, "weight_decay": 0.1}),
    Row("adamp", lambda: adamp(0.03, **_ADAM, weight_decay=0.1, delta=0.5, wd_ratio=0.3, channel_axis=0), "adamp",
        "adamp:AdamP", _TORCH_ADAM | {"weight_decay": 0.1, "delta": 0.5, "wd_ratio": 0.3}),
    Row("adamp_nesterov", lambda: adamp(0.03, **_ADAM, delta=0.9, nesterov=True, channel_axis=0), "adamp",
        "adamp:AdamP", _TORCH_ADAM | {"delta": 0.9, "nesterov": True}),
    Row("sgdp", lambda: sgdp(0.03, 0.8, 0.1, 0.1, delta=0.5, wd_ratio=0.3, channel_axis=0), "adamp", "adamp:SGDP",
        {"lr": 0.03, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.1, "delta": 0.5, "wd_ratio": 0.3}),
    Row("sgdp_nesterov", lambda: sgdp(0.03, 0.8, delta=0.9, nesterov=True, channel_axis=0), "adamp", "adamp:SGDP",
        {"lr": 0.03, "momentum": 0.8, "delta": 0.9, "nesterov": True}),
    Row("qhm", lambda: qhm(0.05, 0.9, 0.6, 0.1), "qhoptim", "qhoptim.pyt:QHM",
        {"lr": 0.05, "momentum": 0.9, "nu": 0.6, "weight_decay": 0.1}),
    Row("qhm_direct", lambda: qhm(0.05, 0.9, 0.6, 0.1, decay_form="scaled"), "qhoptim", "qhoptim.pyt:QHM",
        {"lr": 0.05, "momentum": 0.9, "nu": 0.6, "weight_decay": 0.1, "weight_decay_type": "direct"}),
    Row("qhadam", lambda: qhadam(0.03, 0.85, 0.98, 0.7, 0.9, 1e-6, 0.1), "qhoptim", "qhoptim.pyt:QHAdam",
        _TORCH_ADAM | {"nus": (0.7, 0.9), "weight_decay": 0.1}),
    Row("qhadamw", lambda: qhadam(0.03, 0.85, 0.98, 0.7, 0.9, 1e-6, 0.1, decay_form="scaled"), "qhoptim",
        "qhoptim.pyt:QHAdam",
        _TORCH_ADAM | {"nus": (0.7, 0.9), "weight_decay": 0.1, "decouple_weight_decay": True}),
    Row("asgd", lambda: asgd(0.1, 0.05, 0.6, 10, 0.1), "torch", "torch.optim:ASGD",
        {"lr": 0.1, "lambd": 0.05, "alpha": 0.6, "t0": 10, "weight_decay": 0.1}, how="torch_as"),
    Row("ftrl", lambda: ftrl(0.1, -0.7, 0.2, 0.3, 0.05, 0.02, 0.5), "keras", "keras.optimizers:Ftrl",
        {"learning_rate": 0.1, "learning_rate_power": -0.7, "initial_accumulator_value": 0.2,
         "l1_regularization_strength": 0.3, "l2_regularization_strength": 0.05,
         "l2_shrinkage_regularization_strength": 0.02, "beta": 0.5}, how="keras"),
    Row("ftrl_pytorch_optimizer", lambda: ftrl(0.1, initial_accumulator_value=0, l1=0.3, l2=0.05, offset=0.5),
        "pytorch_optimizer", "pytorch_optimizer:FTRL", {"lr": 0.1, "lambda_1": 0.3, "lambda_2": 0.1, "beta": 0.5}),
    # with all params as one row the authors' code has one accumulator, as the paper
    _clone("adagrad_norm", lambda: adagrad_norm(2.0, 0.3), "torch.optim.adagradnorm:Adagradnorm",
           {"lr": 2.0, "initial_accumulator_value": 0.3}, ADAGRAD_NORM),
    # theirs divides by epsilon where the gradient has one entry
    _clone("sgd_sai", lambda: sgd_sai(0.01, 0.8, 1e-6, 0.1), "sgd_sai.sgd_sai:SGD_sai",
           {"lr": 0.01, "momentum": 0.8, "eps": 1e-6, "weight_decay": 0.1}, SGD_SAI, leaves=NO_SCALAR),
    Row("adam_mini",
        lambda: adam_mini(0.03, **_ADAM, weight_decay=0.1, mask={"vector": False, "kernel": True, "matrix": True,
            "scalar": True, "wide": True}, blocks={"kernel": "tensor", "matrix": AdamMiniBlocks(0, 2),
            "scalar": "tensor", "vector": "element", "wide": AdamMiniBlocks(0)}),
        "adam_mini", "adam_mini:Adam_mini",
        _TORCH_ADAM | {"weight_decay": 0.1, "dim": 6, "n_heads": 3, "verbose": False}, how="torch_as",
        options={"rename": {"matrix": "wq", "wide": "mlp", "vector": "bias"}}),
    Row("came", lambda: came(0.01, 0.85, 0.98, 0.995, 1e-20, 1e-12, 0.8, weight_decay=0.1), "came-pytorch",
        "came_pytorch:CAME", {"lr": 0.01, "betas": (0.85, 0.98, 0.995), "eps": (1e-20, 1e-12), "clip_threshold": 0.8,
                              "weight_decay": 0.1}),
    Row("aggmo", lambda: aggmo(0.03, (0.0, 0.8, 0.95), 0.1), "torch-optimizer", "torch_optimizer:AggMo",
        {"lr": 0.03, "betas": (0.0, 0.8, 0.95), "weight_decay": 0.1}),
    Row("stable_adamw", lambda: stable_adamw(0.03, **_ADAM, weight_decay=0.1), "torch-optimi", "optimi:StableAdamW",
        _TORCH_ADAM | {"weight_decay": 0.1}),
]  # fmt: skip

# The averaged params, which PyTorch keeps in its state.
ROWS.append(
    Row("asgd_average", lambda: asgd(0.1, 0.05, 0.6, 10, 0.1), "torch", "torch.optim:ASGD",
                   {"lr": 0.1, "lambd": 0.05, "alpha": 0.6, "t0": 10, "weight_decay": 0.1}, how="torch_as",
                   evaluated=True, options={"read": "ax"})
)  # fmt: skip
