"""How a long pass reports to its caller: one kind of callable for the whole package."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, items done, items in all); first with 0 items done, so that the caller can
say what has begun."""
Say = Callable[[str], None]
"""Called with a line for the user."""


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def within(progress: Progress, what: str, total: int, *, start: int = 0) -> Progress:
    """For a pass that is one piece of a larger one: its count, from `start` on, is shown as `what` of `total`.

    >>> within(lambda *seen: print(seen), "photos", 10, start=4)("embedding", 2, 3)
    ('photos', 6, 10)
    """

    def update(_: str, done: int, __: int) -> None:
        progress(what, start + done, total)

    return update
