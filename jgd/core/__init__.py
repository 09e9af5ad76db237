"""What an optimizer is made of. Nothing here imports from the rest of the library.

A rule (`Rule`) is a formula for one leaf. `lift` makes an optimizer of it, for any tree. Whoever writes
an update rule needs these two, and the arithmetic helpers beside them.
"""

from jgd.core._apply import apply_updates as apply_updates
from jgd.core._checks import check_arrays as check_arrays
from jgd.core._checks import check_choice as check_choice
from jgd.core._checks import given_numbers as given_numbers
from jgd.core._checks import path_text as path_text
from jgd.core._evaluation import eval_params as eval_params
from jgd.core._extras import require as require
from jgd.core._hyperparams import DECAY_RATE as DECAY_RATE
from jgd.core._hyperparams import NOT_NEGATIVE as NOT_NEGATIVE
from jgd.core._hyperparams import POSITIVE as POSITIVE
from jgd.core._hyperparams import Hyperparams as Hyperparams
from jgd.core._hyperparams import check_hyperparam as check_hyperparam
from jgd.core._hyperparams import get_hyperparams as get_hyperparams
from jgd.core._hyperparams import set_hyperparams as set_hyperparams
from jgd.core._layouts import Block as Block
from jgd.core._layouts import Layout as Layout
from jgd.core._lift import lift as lift
from jgd.core._lift import wide_copy as wide_copy
from jgd.core._masks import Mask as Mask
from jgd.core._masks import broadcast_mask as broadcast_mask
from jgd.core._numerics import abs_sq as abs_sq
from jgd.core._numerics import compute_dtype as compute_dtype
from jgd.core._numerics import debias as debias
from jgd.core._numerics import full as full
from jgd.core._numerics import global_norm as global_norm
from jgd.core._numerics import increment as increment
from jgd.core._numerics import random_key as random_key
from jgd.core._numerics import random_like as random_like
from jgd.core._numerics import real_dtype as real_dtype
from jgd.core._numerics import real_zero as real_zero
from jgd.core._numerics import real_zeros as real_zeros
from jgd.core._numerics import scale_tree as scale_tree
from jgd.core._numerics import sum_of_squares as sum_of_squares
from jgd.core._numerics import tree_size as tree_size
from jgd.core._numerics import zeros as zeros
from jgd.core._optimizer import Optimizer as Optimizer
from jgd.core._optimizer import OptState as OptState
from jgd.core._optimizer import make_optimizer as make_optimizer
from jgd.core._rule import Rule as Rule
from jgd.core._rule import TreeRule as TreeRule
from jgd.core._rule import under_prefix as under_prefix
from jgd.core._storage import Storage as Storage
from jgd.core._transform import lift_transform as lift_transform
from jgd.core._types import Array as Array
from jgd.core._types import Hyper as Hyper
from jgd.core._types import PyTree as PyTree
from jgd.core._types import ScalarOrSchedule as ScalarOrSchedule
from jgd.core._types import Slots as Slots
from jgd.core._types import is_traced as is_traced
from jgd.core._wrapper import Wrapper as Wrapper
from jgd.core._wrapper import WrapperState as WrapperState
from jgd.core._wrapper import check_transform as check_transform
from jgd.core._wrapper import is_float as is_float
from jgd.core._wrapper import transform_text as transform_text
from jgd.core._wrapper import wrap as wrap
