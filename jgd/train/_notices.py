"""What a run tells the person who started it."""

import logging

_LOGGER = logging.getLogger("jgd")


class Notices:
    """Sentences for a person: printed where progress is shown, and given to the logger `"jgd"`.

    Python shows warnings of a logger that nobody has set up on stderr: those are seen without progress too, and once.

    Args:
        shown: Whether progress is shown.
    """

    def __init__(self, shown: bool):
        self._shown = shown
        self.texts: list[str] = []

    def tell(self, text: str, level: int = logging.INFO) -> None:
        """One sentence; those that a person must not miss have the level `logging.WARNING`."""
        text = f"fit: {text}"
        self.texts.append(text)
        if self._shown:
            print(text, flush=True)
        if not self._shown or _LOGGER.hasHandlers():
            _LOGGER.log(level, text)

    def warn(self, text: str) -> None:
        """One sentence that a person must not miss."""
        self.tell(text, logging.WARNING)
