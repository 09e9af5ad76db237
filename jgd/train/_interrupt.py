"""Ctrl-C and SIGTERM between two steps instead of within one."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruptible:
    """While it is entered, the first Ctrl-C sets `requested` and the second raises KeyboardInterrupt.

    An interrupt in the midst of a step could lose the state, whose memory is being reused. Python lets only the main
    thread listen; elsewhere signals stay as they are.

    Args:
        terminable: Whether to listen to SIGTERM as well, by which schedulers say that a machine is about to go. The
            second one does what it did before.

    Attributes:
        requested: `"interrupted"` after Ctrl-C, `"terminated"` after SIGTERM, `""` before.
    """

    def __init__(self, terminable: bool = False) -> None:
        self.requested = ""
        self._signals = [signal.SIGINT, signal.SIGTERM] if terminable else [signal.SIGINT]
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruptible":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGTERM:
            if self.requested == "terminated":
                signal.signal(number, self._previous[number])
                os.kill(os.getpid(), number)
            self.requested = "terminated"
        elif self.requested:
            raise KeyboardInterrupt
        else:
            self.requested = "interrupted"
