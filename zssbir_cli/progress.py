"""How a long pass reports to its caller: one kind of callable for the whole package."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, items done, items in all); first with 0 items done, so that the caller can
say what has begun."""
Say = Callable[[str], None]
"""Called with a line for the user."""


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def rough_time(seconds: float) -> str:
    """A duration as one would say it.

    >>> rough_time(4), rough_time(95), rough_time(1800), rough_time(9000)
    ('a few seconds', '2 minutes', '30 minutes', '2.5 hours')
    """
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"{round(seconds / 10) * 10 or 10} seconds"
    if seconds < 3600:
        minutes = max(1, round(seconds / 60))
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.1f} hours"


def rough_size(count: float) -> str:
    """Bytes as one would say them.

    >>> rough_size(400), rough_size(2.5e6), rough_size(1.23e9)
    ('0 MB', '2.5 MB', '1.2 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:.1f} MB" if 1e5 < count < 1e7 else f"{count / 1e6:.0f} MB"


def within(progress: Progress, what: str, total: int, *, start: int = 0) -> Progress:
    """For a pass that is one piece of a larger one: its count, from `start` on, is shown as `what` of `total`.

    >>> within(lambda *seen: print(seen), "photos", 10, start=4)("embedding", 2, 3)
    ('photos', 6, 10)
    """

    def update(_: str, done: int, __: int) -> None:
        progress(what, start + done, total)

    return update
