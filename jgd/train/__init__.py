"""Training: the state, the step, the loop."""

from jgd.train._state import TrainState as TrainState
from jgd.train.checkpoints._files import CheckpointError as CheckpointError
from jgd.train.checkpoints._folder import Checkpoints as Checkpoints
from jgd.train.checkpoints._folder import Restored as Restored
from jgd.train.checkpoints._one import restore_checkpoint as restore_checkpoint
from jgd.train.checkpoints._one import restore_params as restore_params
from jgd.train.checkpoints._one import save_checkpoint as save_checkpoint
from jgd.train.data._array_loader import ArrayLoader as ArrayLoader
from jgd.train.data._poisson_loader import PoissonLoader as PoissonLoader
from jgd.train.debug._bundle import Bundle as Bundle
from jgd.train.debug._bundle import load_bundle as load_bundle
from jgd.train.debug._report import DebugReport as DebugReport
from jgd.train.debug._report import debug_step as debug_step
from jgd.train.guards._events import events_of as events_of
from jgd.train.guards._finite import NonFiniteError as NonFiniteError
from jgd.train.guards._finite import SpikeError as SpikeError
from jgd.train.guards._guard import Guard as Guard
from jgd.train.guards._loss_scale import LossScale as LossScale
from jgd.train.guards._spikes import Spikes as Spikes
from jgd.train.loop._fit import fit as fit
from jgd.train.loop._history import History as History
from jgd.train.loop._rollback import Rollback as Rollback
from jgd.train.loop._rollback import RollbackError as RollbackError
from jgd.train.step._dp_sgd import dp_sgd as dp_sgd
from jgd.train.step._make_step import make_step as make_step
from jgd.train.step._scan import scan_steps as scan_steps
