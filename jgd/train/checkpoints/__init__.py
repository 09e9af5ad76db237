"""States on disk."""

from jgd.train.checkpoints._files import orbax as orbax
from jgd.train.checkpoints._paths import as_path as as_path
from jgd.train.checkpoints._paths import make_folder as make_folder
