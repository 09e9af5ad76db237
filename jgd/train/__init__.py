"""Training: the state, the step, the loop."""

from jgd.train._checkpoint import restore_checkpoint as restore_checkpoint
from jgd.train._checkpoint import save_checkpoint as save_checkpoint
from jgd.train._finite import NonFiniteError as NonFiniteError
from jgd.train._fit import fit as fit
from jgd.train._history import History as History
from jgd.train._state import TrainState as TrainState
from jgd.train._step import make_step as make_step
from jgd.train._step import scan_steps as scan_steps
