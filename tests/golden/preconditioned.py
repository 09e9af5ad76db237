"""Rules with a matrix for each axis: SOAP, Shampoo, PSGD Kron.

The references that round to float32 inside are run with those parts in float64 (`how="double"`).
"""

from rows import Row
from runners_preconditioned import shared_probe

from jgd.rules._kron import kron
from jgd.rules._shampoo import shampoo
from jgd.rules._soap import soap

# The first gradient of some leaves has not full rank: the rest of its eigenvectors is decided by rounding. Rows with
# eigenvectors are for leaves, or axes, without that; the others start from the identity on both sides.
_SOAP = {"lr": 0.02, "betas": (0.9, 0.93), "eps": 1e-7, "weight_decay": 0.1, "precondition_frequency": 4}
_OURS = {"learning_rate": 0.02, "b1": 0.9, "b2": 0.93, "eps": 1e-7, "weight_decay": 0.1, "precondition_frequency": 4}
_SOAP_CLONE = {"package": "torch", "theirs": "soap:SOAP", "how": "double",
               "options": {"clone": "SOAP", "commit": "a1e5535"}}  # fmt: skip
_FROM_IDENTITY = _SOAP_CLONE | {"options": _SOAP_CLONE["options"] | {"basis": "identity"}}

ROWS = [
    Row("soap", lambda: soap(**_OURS, max_precond_dim=5, init_basis="eigh"),
        arguments=_SOAP | {"max_precond_dim": 5}, **_SOAP_CLONE),
    Row("soap_merged", lambda: soap(**_OURS, max_precond_dim=6, merge_dims=True, init_basis="eigh", shampoo_beta=0.8),
        arguments=_SOAP | {"max_precond_dim": 6, "merge_dims": True, "shampoo_beta": 0.8},
        leaves=("kernel", "vector"), **_SOAP_CLONE),
    Row("soap_from_identity", lambda: soap(**_OURS, precondition_1d=True, normalize_grads=True, correct_bias=False,
                                           init_basis="identity"),
        arguments=_SOAP | {"precondition_1d": True, "normalize_grads": True, "correct_bias": False},
        **_FROM_IDENTITY),
]  # fmt: skip

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

ROWS += [
    Row("shampoo", lambda: shampoo(0.05, 0.8, eps=1e-3, correct_bias=False, precondition_frequency=1,
                                       **_AS_THEIRS),
        arguments={"lr": 0.05, "betas": (0.8, 1.0), "epsilon": 1e-3, "use_bias_correction": False} | _ROOTS,
        **_SHAMPOO_CLONE),
    Row("shampoo_sgd_graft", lambda: shampoo(**_OUR_SHAMPOO, block_size=8, graft="sgd"),
        arguments=_SHAMPOO | {"max_preconditioner_dim": 8, "grafting_config": ("SGDPreconditionerConfig", {})},
        **_SHAMPOO_CLONE),
    Row("shampoo_adagrad_graft", lambda: shampoo(**_OUR_SHAMPOO, block_size=4, graft="adagrad", graft_eps=1e-6),
        arguments=_SHAMPOO | {"max_preconditioner_dim": 4,
                              "grafting_config": ("AdaGradPreconditionerConfig", {"epsilon": 1e-6})},
        **_SHAMPOO_CLONE),
    Row("shampoo_rmsprop_graft", lambda: shampoo(**_OUR_SHAMPOO, block_size=3, merge_dims=False, graft="rmsprop",
                                                 graft_eps=1e-6),
        arguments=_SHAMPOO | {"max_preconditioner_dim": 3,
                              "distributed_config": ("SingleDeviceDistributedConfig",
                                                     {"target_parameter_dimensionality": float("inf")}),
                              "grafting_config": ("RMSpropPreconditionerConfig", {"epsilon": 1e-6})},
        **_SHAMPOO_CLONE),
    Row("shampoo_adam_graft", lambda: shampoo(**_OUR_SHAMPOO, block_size=5, graft="adam", graft_b2=0.97, graft_eps=1e-6,
                                              inverse_exponent_override=0.4, decay_form="coupled"),
        arguments=_SHAMPOO | {"max_preconditioner_dim": 5, "weight_decay_type": ("WeightDecayType", {"value": "L2"}),
                              "grafting_config": ("AdamPreconditionerConfig", {"epsilon": 1e-6, "beta2": 0.97}),
                              "preconditioner_config": ("RootInvShampooPreconditionerConfig",
                                                        _WIDE | {"inverse_exponent_override": _EXPONENTS})},
        **_SHAMPOO_CLONE),
]  # fmt: skip

# Both sides are handed the same probes. The reference fails on scalars; its random balancing changes no step.
_KRON = {"lr": 0.01, "b1": 0.8, "weight_decay": 0.1, "precond_lr": 0.2, "precond_init_scale": 0.7,
         "preconditioner_update_probability": 1.0, "precond_dtype": "torch.float64"}  # fmt: skip
_OUR_KRON = {"learning_rate": 0.01, "b1": 0.8, "weight_decay": 0.1, "precond_lr": 0.2, "precond_init_scale": 0.7}
_KRON_TORCH = {"package": "kron-torch", "theirs": "kron_torch:Kron", "how": "double"}
_WITHOUT_SCALARS = ("kernel", "matrix", "vector", "wide")

ROWS += [
    Row("kron", lambda: kron(**_OUR_KRON, preconditioner_update_probability=1.0, probe=shared_probe),
        arguments=_KRON, leaves=_WITHOUT_SCALARS, **_KRON_TORCH),
    Row("kron_unmerged", lambda: kron(**_OUR_KRON, preconditioner_update_probability=0.3, probe=shared_probe,
                                      merge_dims=False, momentum_into_precond_update=False,
                                      memory_save_mode="smart_one_diag"),
        arguments=_KRON | {"preconditioner_update_probability": 0.3, "merge_dims": False,
                           "momentum_into_precond_update": False, "memory_save_mode": "smart_one_diag"},
        leaves=_WITHOUT_SCALARS, **_KRON_TORCH),
    Row("kron_diagonal", lambda: kron(0.01, probe=shared_probe, max_size_triangular=5, memory_save_mode="one_diag"),
        arguments={"lr": 0.01, "max_size_triangular": 5, "memory_save_mode": "one_diag",
                   "precond_dtype": "torch.float64"}, leaves=_WITHOUT_SCALARS,
        **_KRON_TORCH),
]  # fmt: skip
