"""Ctrl-C, SIGTERM and a closed terminal during training: finish the step, save, end."""

import os
import signal as signals
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from signal import SIGINT, SIGTERM, Signals
from threading import current_thread, main_thread
from types import FrameType

HANG_UP: Signals | None = getattr(signals, "SIGHUP", None)
"""The terminal was closed; Windows has no such signal."""


class StopRequest:
    """Whether a signal asked to stop, and which."""

    signal: Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGHUP (unless it is ignored, as `nohup` has it) into a request for as long as the context
    lasts; a second SIGINT interrupts at once.

    Signals can only be caught in the main thread; in another one the request is never set.
    """
    request = StopRequest()
    if current_thread() is not main_thread():
        yield request
        return

    def handle(number: int, _: FrameType | None) -> None:
        if request and number == SIGINT:
            raise KeyboardInterrupt
        if number == HANG_UP:
            _leave_terminal()
        request.signal = Signals(number)

    heard = [SIGINT, SIGTERM]
    if HANG_UP is not None and signals.getsignal(HANG_UP) is not signals.SIG_IGN:
        heard.append(HANG_UP)
    old = {number: signals.signal(number, handle) for number in heard}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signals.signal(number, handler)


def _leave_terminal() -> None:
    """Send what would be printed to a terminal that is gone nowhere: writing to it would end the step with an error."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(null, stream)
        os.close(null)
