"""Checks that any optimizer should pass: jgd's, optax's or your own. They need no test framework.

>>> import optax
>>> from jgd.testing import check_optimizer, check_zero_gradients
>>> check_zero_gradients(optax.sgd(1e-3))
>>> check_zero_gradients(optax.adam(1e-3))  # doctest: +IGNORE_EXCEPTION_DETAIL
Traceback (most recent call last):
OptimizerCheckError: check_zero_gradients: after zero gradients in float16 update 1 at ['matrix'][0, 0] is nan.
"""

from jgd.gradients.probes import PerExampleCheckError as PerExampleCheckError
from jgd.gradients.probes import PerExampleReport as PerExampleReport
from jgd.gradients.probes import check_per_example as check_per_example
from jgd.testing._all import CHECKS as CHECKS
from jgd.testing._all import check_optimizer as check_optimizer
from jgd.testing._hyperparams import check_hyperparams as check_hyperparams
from jgd.testing._layouts import check_layouts as check_layouts
from jgd.testing._numbers import check_descends as check_descends
from jgd.testing._numbers import check_huge_gradients as check_huge_gradients
from jgd.testing._numbers import check_low_precision as check_low_precision
from jgd.testing._numbers import check_zero_gradients as check_zero_gradients
from jgd.testing._programs import check_donation as check_donation
from jgd.testing._programs import check_jit_equals_eager as check_jit_equals_eager
from jgd.testing._programs import check_one_trace as check_one_trace
from jgd.testing._programs import check_vmap_equals_loop as check_vmap_equals_loop
from jgd.testing._structure import check_abstract_init as check_abstract_init
from jgd.testing._structure import check_integer_leaves as check_integer_leaves
from jgd.testing._structure import check_none_and_empty_leaves as check_none_and_empty_leaves
from jgd.testing._structure import check_state_types as check_state_types
from jgd.testing._subject import OptimizerCheckError as OptimizerCheckError
from jgd.testing._subject import quadratic as quadratic
from jgd.testing._traces import check_trace as check_trace
from jgd.testing._traces import record_trace as record_trace
