"""jgd: gradient descent for JAX.

Pure update rules, compiled into one step, over plain pytrees. Optimizers speak optax's protocol; their hyperparameters
are data.

>>> import jax, jax.numpy as jnp, jgd
>>> optimizer = jgd.adam(0.1)
>>> params = jnp.array([5.0])
>>> state = optimizer.init(params)
>>> for _ in range(200):
...     grads = jax.grad(lambda w: jnp.sum((w - 2.0) ** 2))(params)
...     updates, state = optimizer.update(grads, state, params)
...     params = jgd.apply_updates(params, updates)
>>> print(params.round(2))
[2.]
"""

import importlib
from typing import TYPE_CHECKING, Any

from jgd import gradients as gradients
from jgd import schedules as schedules
from jgd.core import Optimizer as Optimizer
from jgd.core import OptState as OptState
from jgd.core import Packed as Packed
from jgd.core import apply_updates as apply_updates
from jgd.core import eval_params as eval_params
from jgd.core import from_optax as _from_optax
from jgd.core import get_hyperparams as get_hyperparams
from jgd.core import global_norm as global_norm
from jgd.core import pack as pack
from jgd.core import set_hyperparams as set_hyperparams
from jgd.core import state_bytes as state_bytes
from jgd.core import unpack as unpack
from jgd.core import update_params as update_params
from jgd.gradients import Padded as Padded
from jgd.gradients import clipped_grad as clipped_grad
from jgd.gradients import noise_scale as noise_scale
from jgd.gradients import per_example_grads as per_example_grads
from jgd.minimizers import MinimizeResult as MinimizeResult
from jgd.minimizers import minimize as minimize
from jgd.minimizers import multi_start as multi_start
from jgd.rules import AdamMiniBlocks as AdamMiniBlocks
from jgd.rules import GaLoreDimensionNumbers as GaLoreDimensionNumbers
from jgd.rules import MuonDimensionNumbers as MuonDimensionNumbers
from jgd.rules import acprop as acprop
from jgd.rules import adabelief as adabelief
from jgd.rules import adadelta as adadelta
from jgd.rules import adafactor as adafactor
from jgd.rules import adagrad as adagrad
from jgd.rules import adagrad_norm as adagrad_norm
from jgd.rules import adam as adam
from jgd.rules import adam_atan2 as adam_atan2
from jgd.rules import adam_mini as adam_mini
from jgd.rules import adam_mini_blocks as adam_mini_blocks
from jgd.rules import adamax as adamax
from jgd.rules import adamaxw as adamaxw
from jgd.rules import adamp as adamp
from jgd.rules import adamuon as adamuon
from jgd.rules import adamw as adamw
from jgd.rules import adan as adan
from jgd.rules import ademamix as ademamix
from jgd.rules import adopt as adopt
from jgd.rules import aggmo as aggmo
from jgd.rules import amsgrad as amsgrad
from jgd.rules import apollo as apollo
from jgd.rules import asgd as asgd
from jgd.rules import came as came
from jgd.rules import cocob as cocob
from jgd.rules import dadapt_adamw as dadapt_adamw
from jgd.rules import dion as dion
from jgd.rules import dog as dog
from jgd.rules import dowg as dowg
from jgd.rules import fromage as fromage
from jgd.rules import ftrl as ftrl
from jgd.rules import galore as galore
from jgd.rules import gradient_descent as gradient_descent
from jgd.rules import kron as kron
from jgd.rules import lamb as lamb
from jgd.rules import laprop as laprop
from jgd.rules import lars as lars
from jgd.rules import lbfgs as lbfgs
from jgd.rules import ldog as ldog
from jgd.rules import lion as lion
from jgd.rules import madgrad as madgrad
from jgd.rules import matrix_axes_for as matrix_axes_for
from jgd.rules import momo as momo
from jgd.rules import momo_adam as momo_adam
from jgd.rules import muon as muon
from jgd.rules import musgd as musgd
from jgd.rules import nadam as nadam
from jgd.rules import nadamw as nadamw
from jgd.rules import noisy_sgd as noisy_sgd
from jgd.rules import normuon as normuon
from jgd.rules import novograd as novograd
from jgd.rules import optimistic_adam_v2 as optimistic_adam_v2
from jgd.rules import optimistic_gradient_descent as optimistic_gradient_descent
from jgd.rules import polyak_sgd as polyak_sgd
from jgd.rules import prodigy as prodigy
from jgd.rules import qhadam as qhadam
from jgd.rules import qhm as qhm
from jgd.rules import radam as radam
from jgd.rules import rmsprop as rmsprop
from jgd.rules import rprop as rprop
from jgd.rules import sgd as sgd
from jgd.rules import sgd_sai as sgd_sai
from jgd.rules import sgdp as sgdp
from jgd.rules import shampoo as shampoo
from jgd.rules import sign_sgd as sign_sgd
from jgd.rules import signum as signum
from jgd.rules import simplified_ademamix as simplified_ademamix
from jgd.rules import sm3 as sm3
from jgd.rules import soap as soap
from jgd.rules import sophia as sophia
from jgd.rules import stable_adamw as stable_adamw
from jgd.rules import yogi as yogi
from jgd.train import ArrayLoader as ArrayLoader
from jgd.train import CheckpointError as CheckpointError
from jgd.train import Checkpoints as Checkpoints
from jgd.train import DebugReport as DebugReport
from jgd.train import Guard as Guard
from jgd.train import History as History
from jgd.train import LossScale as LossScale
from jgd.train import NonFiniteError as NonFiniteError
from jgd.train import PoissonLoader as PoissonLoader
from jgd.train import Rollback as Rollback
from jgd.train import RollbackError as RollbackError
from jgd.train import SpikeError as SpikeError
from jgd.train import Spikes as Spikes
from jgd.train import TrainState as TrainState
from jgd.train import debug_step as debug_step
from jgd.train import dp_sgd as dp_sgd
from jgd.train import events_of as events_of
from jgd.train import fit as fit
from jgd.train import load_bundle as load_bundle
from jgd.train import make_step as make_step
from jgd.train import restore_checkpoint as restore_checkpoint
from jgd.train import restore_params as restore_params
from jgd.train import save_checkpoint as save_checkpoint
from jgd.train import scan_steps as scan_steps
from jgd.transforms import MultiSteps as MultiSteps
from jgd.transforms import accumulate as accumulate
from jgd.transforms import adaptive_grad_clip as adaptive_grad_clip
from jgd.transforms import add_decayed_weights as add_decayed_weights
from jgd.transforms import add_noise as add_noise
from jgd.transforms import average_params as average_params
from jgd.transforms import cautious as cautious
from jgd.transforms import cautious_decay as cautious_decay
from jgd.transforms import centralize as centralize
from jgd.transforms import chain as chain
from jgd.transforms import clip as clip
from jgd.transforms import clip_by_block_rms as clip_by_block_rms
from jgd.transforms import clip_by_global_norm as clip_by_global_norm
from jgd.transforms import clip_update_rms as clip_update_rms
from jgd.transforms import differentially_private_aggregate as differentially_private_aggregate
from jgd.transforms import dpsgd as dpsgd
from jgd.transforms import ema_nesterov as ema_nesterov
from jgd.transforms import freeze as freeze
from jgd.transforms import grams as grams
from jgd.transforms import groups as groups
from jgd.transforms import hyperball as hyperball
from jgd.transforms import identity as identity
from jgd.transforms import lookahead as lookahead
from jgd.transforms import mars as mars
from jgd.transforms import masked as masked
from jgd.transforms import master_params as master_params
from jgd.transforms import mechanize as mechanize
from jgd.transforms import named_chain as named_chain
from jgd.transforms import normalize as normalize
from jgd.transforms import orthogonal_gradient as orthogonal_gradient
from jgd.transforms import partition as partition
from jgd.transforms import reduce_on_plateau as reduce_on_plateau
from jgd.transforms import sam as sam
from jgd.transforms import scale_by_learning_rate as scale_by_learning_rate
from jgd.transforms import schedule_free as schedule_free
from jgd.transforms import schedule_free_adamw as schedule_free_adamw
from jgd.transforms import schedule_free_eval_params as schedule_free_eval_params
from jgd.transforms import schedule_free_sgd as schedule_free_sgd
from jgd.transforms import selective_transform as selective_transform
from jgd.transforms import set_to_zero as set_to_zero
from jgd.transforms import skip_nonfinite as skip_nonfinite
from jgd.transforms import split_master_weights as split_master_weights
from jgd.transforms import split_real_and_imaginary as split_real_and_imaginary
from jgd.transforms import stochastic_rounding as stochastic_rounding
from jgd.transforms import trust_ratio as trust_ratio

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jgd import compat as compat
    from jgd import contrib as contrib
    from jgd import testing as testing

_ELSEWHERE = {"MultiStepsState": "jgd.transforms._accumulation", "multi_transform": "jgd.transforms"}


def __getattr__(name: str) -> Any:
    """Modules that are imported when they are first asked for, and what jgd takes from optax as it is."""
    if name in ("compat", "contrib", "testing"):
        return importlib.import_module(f"jgd.{name}")
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(_ELSEWHERE[name]), name)
    return _from_optax("jgd", name, "optax")
