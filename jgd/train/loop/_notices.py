"""What a run tells its user."""

import logging

from jgd.train.loop._log import JsonlLog
from jgd.train.loop._progress import Progress

_LOGGER = logging.getLogger("jgd")


class Notices:
    """Sentences for a person: printed where progress is shown, and given to the logger `"jgd"`.

    Python writes the warnings of a logger that nobody has set up to stderr: they are seen without progress too, and
    once. Warnings of the module `warnings` they are not, since a test suite may turn those into errors, and none of
    these sentences is a reason to end a run.

    Args:
        progress: What the run shows.
        shown: Whether it shows anything.
        log: Where each sentence has a line of kind `"notice"`.

    Attributes:
        texts: All of them so far.
    """

    def __init__(self, progress: Progress, shown: bool, log: JsonlLog):
        self._progress, self._shown, self._log = progress, shown, log
        self.texts: list[str] = []

    def tell(self, text: str, level: int = logging.INFO) -> None:
        """Tells the user a sentence."""
        self.texts.append(text)
        self._log.write("notice", {"text": text})
        self._progress.say(f"fit: {text}")
        # What was printed need not stand on the screen twice: orbax, for one, lets warnings of all loggers through.
        _LOGGER.log(logging.INFO if self._shown else level, "fit: %s", text)

    def warn(self, text: str) -> None:
        """Tells the user a sentence that must not be missed."""
        self.tell(text, logging.WARNING)
