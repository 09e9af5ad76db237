"""Ctrl-C between two steps instead of within one."""

import signal
import threading
from types import FrameType, TracebackType


class Interruptible:
    """While it is entered, the first Ctrl-C sets `requested` and the second raises KeyboardInterrupt.

    An interrupt in the midst of a step could lose the state, whose memory is being reused. Python lets only the main
    thread listen; elsewhere Ctrl-C stays as it is.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interruptible":
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listens:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
