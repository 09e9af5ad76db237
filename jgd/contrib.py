"""`optax.contrib` by its names: jgd's own where there is one, optax's otherwise.

>>> import jgd, optax
>>> jgd.contrib.prodigy is jgd.prodigy, jgd.contrib.scale_by_muon is optax.contrib.scale_by_muon
(True, True)
"""

from typing import Any

from jgd import rules, transforms
from jgd.core import from_optax

_OURS = vars(rules) | vars(transforms)


def __getattr__(name: str) -> Any:
    """A name of jgd, or else of optax."""
    return _OURS[name] if name in _OURS else from_optax(__name__, name, "optax.contrib")
