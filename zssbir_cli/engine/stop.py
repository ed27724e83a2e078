"""Ctrl-C and SIGTERM during training: finish the step, save, end."""

import signal as signals
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM, Signals
from threading import current_thread, main_thread
from types import FrameType


class StopRequest:
    """Whether a signal asked to stop, and which."""

    signal: Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request for as long as the context lasts; a second SIGINT interrupts at
    once.

    Signals can only be caught in the main thread; in another one the request is never set.
    """
    request = StopRequest()
    if current_thread() is not main_thread():
        yield request
        return

    def handle(number: int, _: FrameType | None) -> None:
        if request and number == SIGINT:
            raise KeyboardInterrupt
        request.signal = Signals(number)

    old = {number: signals.signal(number, handle) for number in (SIGINT, SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signals.signal(number, handler)
