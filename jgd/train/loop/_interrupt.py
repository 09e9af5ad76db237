"""Ctrl-C and SIGTERM take effect between two steps instead of within one."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Literal

from jgd.train._state import TrainState
from jgd.train.loop._history import History

OnInterrupt = Literal["auto", "return", "exit"]


class Interruptible:
    """While it is entered, the first Ctrl-C sets `requested` and the second raises KeyboardInterrupt.

    An interrupt within a step could lose the state, whose memory is being reused. Python lets only the main thread
    handle signals; in other threads they stay as they are.

    Args:
        terminable: Whether to handle SIGTERM as well, by which schedulers say that a machine is about to go. The
            second one does what it did before. Where SIGTERM is ignored it stays so.

    Attributes:
        requested: Whether Ctrl-C or SIGTERM came.
        number: The signal; SIGTERM where both came.
    """

    def __init__(self, terminable: bool = False) -> None:
        self.requested = False
        self.number: int | None = None
        self._signals = [signal.SIGINT, signal.SIGTERM] if terminable else [signal.SIGINT]
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruptible":
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in self._signals}
            # None: of a library in another language, which Python could not put back.
            self._previous = {
                number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)
            }
            for number in self._previous:
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        """The signal, as a user knows it."""
        return "SIGTERM" if self.number == signal.SIGTERM else "Ctrl-C"

    def exit_text(self, on_interrupt: OnInterrupt) -> str:
        """How the program ends once all is saved, for a person; empty where `fit` returns."""
        if (
            self.number == signal.SIGTERM
            and on_interrupt != "return"
            and not callable(self._previous.get(signal.SIGTERM))
        ):
            return "the exit status is 143."
        return ""

    def deliver(self, on_interrupt: OnInterrupt, state: TrainState, history: History) -> None:
        """Passes the signal on, once all is saved.

        SIGTERM ends the program, with the exit status that a shell and a scheduler know it by, but for a program that
        has a handler of its own: that is called. Ctrl-C was for the loop alone, unless told otherwise.

        Args:
            on_interrupt: As for `fit`.
            state: For the error's `.state`.
            history: For the error's `.history`.

        Raises:
            SystemExit: After SIGTERM.
            KeyboardInterrupt: After Ctrl-C.
        """
        if self.number is None or on_interrupt == "return":
            return
        handler = self._previous.get(signal.SIGTERM)
        if self.number == signal.SIGTERM and callable(handler):
            handler(signal.SIGTERM, None)
            return
        error: Any = None
        if self.number == signal.SIGTERM:
            error = SystemExit(128 + signal.SIGTERM)
        elif on_interrupt == "exit":
            error = KeyboardInterrupt()
        if error is not None:
            error.state, error.history = state, history
            raise error

    def was_raised(self) -> None:
        """Notes a KeyboardInterrupt that was raised elsewhere."""
        self.requested, self.number = True, signal.SIGINT

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGTERM:
            if self.number == signal.SIGTERM:
                signal.signal(number, self._previous[number])
                os.kill(os.getpid(), number)
            self.number = number
        elif self.requested:
            raise KeyboardInterrupt
        self.number = self.number or number
        self.requested = True
