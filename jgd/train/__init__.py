"""Training: the state, the step, the loop."""

from jgd.train._bundle import Bundle as Bundle
from jgd.train._bundle import load_bundle as load_bundle
from jgd.train._checkpoint import restore_checkpoint as restore_checkpoint
from jgd.train._checkpoint import restore_params as restore_params
from jgd.train._checkpoint import save_checkpoint as save_checkpoint
from jgd.train._checkpoint_files import CheckpointError as CheckpointError
from jgd.train._checkpoints import Checkpoints as Checkpoints
from jgd.train._checkpoints import Restored as Restored
from jgd.train._data import ArrayLoader as ArrayLoader
from jgd.train._debug import DebugReport as DebugReport
from jgd.train._debug import debug_step as debug_step
from jgd.train._dp_sgd import dp_sgd as dp_sgd
from jgd.train._events import events_of as events_of
from jgd.train._finite import NonFiniteError as NonFiniteError
from jgd.train._finite import SpikeError as SpikeError
from jgd.train._fit import fit as fit
from jgd.train._guards import Guard as Guard
from jgd.train._history import History as History
from jgd.train._loss_scale import LossScale as LossScale
from jgd.train._poisson import PoissonLoader as PoissonLoader
from jgd.train._rollback import Rollback as Rollback
from jgd.train._rollback import RollbackError as RollbackError
from jgd.train._scan import scan_steps as scan_steps
from jgd.train._spikes import Spikes as Spikes
from jgd.train._state import TrainState as TrainState
from jgd.train._step import make_step as make_step
