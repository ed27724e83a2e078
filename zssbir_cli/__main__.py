"""Entry point: runs the app; the one place where an error becomes a line and an exit code."""

import contextlib
import errno
import gc
import os
import sys
from typing import NoReturn


def main() -> None:
    """Run the `zssbir` command line and exit with its code (0 ok, 1 bug, 2 usage, 3 data, 4 checkpoint, 5
    diverged, 130 interrupted)."""
    gc.set_threshold(
        10_000, 10, 10
    )  # the imports of PyTorch and timm allocate millions of objects, and free few
    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("ZSSBIR_DEBUG"))
    argv = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        from zssbir_cli.compute.memory import keep_freed_memory
        from zssbir_cli.compute.threads import sleep_when_waiting

        keep_freed_memory()
        sleep_when_waiting()
        from zssbir_cli.cli import streams
        from zssbir_cli.cli.app import run

        streams.open_streams()
        streams.quiet_libraries(debug)
        code = run(argv)
        streams.flush()
    except SystemExit:
        raise
    except BaseException as error:
        if debug:
            raise
        _end(error)
    finally:
        gc.freeze()  # what is left is not searched for garbage when the process ends, which takes a third of a second
    sys.exit(code)


def _end(error: BaseException) -> NoReturn:
    """Exit as an error deserves: one line, and its code."""
    from zssbir_cli.errors import Interrupted, ZssbirError

    if isinstance(error, BrokenPipeError):  # the reader has seen enough: `zssbir runs | head -3`
        _leave(0)
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted")
    if isinstance(error, ZssbirError):
        _say(str(error), interrupted=isinstance(error, Interrupted))
        _leave(error.exit_code)
    line, code = _of_the_system(error) or (
        f"{type(error).__name__}: {error} (this is a bug in zssbir; run again with --debug)",
        1,
    )
    _say(line)
    _leave(code)


def _of_the_system(error: BaseException) -> tuple[str, int] | None:
    """The line and the code of an error that the machine caused, not the program."""
    from zssbir_cli.cli.streams import FULL
    from zssbir_cli.compute.memory import ADVICE, out_of_memory

    if out_of_memory(error):
        return f"out of memory: {ADVICE}", 2
    if not isinstance(error, OSError):
        return None
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}; check the path and its permissions", 3
    if error.errno in FULL:
        return f"{error.strerror}: free some space, or write somewhere else", 3
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.EAGAIN):
        return f"{error.strerror} (errno {error.errno}); see `ulimit -a` and the system's log", 3
    return None


def _say(message: str, *, interrupted: bool = False) -> None:
    with contextlib.suppress(OSError):  # without stderr the exit code has to do
        print(
            "zssbir: " + ("" if interrupted else "error: ") + " ".join(message.split()).replace("?; ", "? "),
            file=sys.stderr,
        )


def _leave(code: int) -> NoReturn:
    from zssbir_cli.cli import streams

    try:
        streams.flush()
    except OSError:
        streams.drop_stdout()
    sys.exit(code)


if __name__ == "__main__":
    main()
