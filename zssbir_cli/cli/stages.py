"""Progress of commands that go through several labelled passes (embedding sketches, photos, ranking)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A function (label, done, total) that shows one bar, or one series of lines, per label."""
    from zssbir_cli.cli.console import progress
    from zssbir_cli.compute import distributed

    with ExitStack() as stack:
        current: dict[str, Callable[[int, int], None]] = {}

        def update(label: str, done: int, total: int) -> None:
            if not distributed.is_main():
                return
            if label not in current:
                stack.close()
                current.clear()
                current[label] = stack.enter_context(progress(label))
            current[label](done, total)

        yield update
