"""Transforms and wrappers of optimizers, and the chain that composes them."""

from typing import Any

from jgd.core import behind_doors as _behind_doors
from jgd.core import from_optax as _from_optax
from jgd.transforms._accumulation import MultiSteps as MultiSteps
from jgd.transforms._accumulation import accumulate as accumulate
from jgd.transforms._averaging import average_params as average_params
from jgd.transforms._cautious import cautious as cautious
from jgd.transforms._cautious import cautious_decay as cautious_decay
from jgd.transforms._cautious import grams as grams
from jgd.transforms._chain import chain as chain
from jgd.transforms._clipping import clip_by_global_norm as clip_by_global_norm
from jgd.transforms._complex import split_real_and_imaginary as split_real_and_imaginary
from jgd.transforms._decay import add_decayed_weights as add_decayed_weights
from jgd.transforms._ema_nesterov import ema_nesterov as ema_nesterov
from jgd.transforms._groups import groups as groups
from jgd.transforms._handed_on import freeze as freeze
from jgd.transforms._handed_on import identity as identity
from jgd.transforms._handed_on import masked as masked
from jgd.transforms._handed_on import named_chain as named_chain
from jgd.transforms._handed_on import partition as partition
from jgd.transforms._handed_on import selective_transform as selective_transform
from jgd.transforms._handed_on import set_to_zero as set_to_zero
from jgd.transforms._leafwise import adaptive_grad_clip as adaptive_grad_clip
from jgd.transforms._leafwise import centralize as centralize
from jgd.transforms._leafwise import clip as clip
from jgd.transforms._leafwise import clip_by_block_rms as clip_by_block_rms
from jgd.transforms._leafwise import normalize as normalize
from jgd.transforms._lookahead import lookahead as lookahead
from jgd.transforms._low_precision import master_params as master_params
from jgd.transforms._low_precision import split_master_weights as split_master_weights
from jgd.transforms._low_precision import stochastic_rounding as stochastic_rounding
from jgd.transforms._mars import mars as mars
from jgd.transforms._mechanic import mechanize as mechanize
from jgd.transforms._noise import add_noise as add_noise
from jgd.transforms._norms import clip_update_rms as clip_update_rms
from jgd.transforms._norms import hyperball as hyperball
from jgd.transforms._norms import orthogonal_gradient as orthogonal_gradient
from jgd.transforms._norms import trust_ratio as trust_ratio
from jgd.transforms._plateau import reduce_on_plateau as reduce_on_plateau
from jgd.transforms._private import differentially_private_aggregate as differentially_private_aggregate
from jgd.transforms._private import dpsgd as dpsgd
from jgd.transforms._sam import sam as sam
from jgd.transforms._scaling import scale_by_learning_rate as scale_by_learning_rate
from jgd.transforms._schedule_free import schedule_free as schedule_free
from jgd.transforms._schedule_free_rules import schedule_free_adamw as schedule_free_adamw
from jgd.transforms._schedule_free_rules import schedule_free_eval_params as schedule_free_eval_params
from jgd.transforms._schedule_free_rules import schedule_free_sgd as schedule_free_sgd
from jgd.transforms._skip import skip_nonfinite as skip_nonfinite

globals().update(_behind_doors(globals()))
multi_transform = partition  # optax's older name


def __getattr__(name: str) -> Any:
    """What `optax.transforms` has and this package does not is optax's."""
    return _from_optax(__name__, name, "optax.transforms")
