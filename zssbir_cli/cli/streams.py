"""Standard streams that print any text, and leave quietly when nobody reads them or the disk is full; what of the logs
reaches them."""

import codecs
import contextlib
import errno
import io
import logging
import os
import sys
import warnings

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""What a stream's encoding lacks becomes an escape; a byte of a name that is not UTF-8 becomes \xNN."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    byte = {c: f"\\x{ord(c) - 0xDC00:02x}" for c in text if 0xDC80 <= ord(c) <= 0xDCFF}
    return "".join(byte.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


def open_streams() -> None:
    """Let stdout and stderr print any text in their encoding; a closed stream swallows what is printed."""
    codecs.register_error("zssbir", _escape)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="zssbir")


def flush() -> None:
    """Write out what is printed so far. Raises OSError when stdout cannot take it."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.flush()


def drop_stdout() -> None:
    """Send the rest of stdout nowhere, so that Python's last flush does not fail too."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class _Notes(logging.Handler):
    """One line on stderr for each record of a logger that no logger below it has shown."""

    def __init__(self, owner: str, level: int) -> None:
        super().__init__(level)
        self.owner = owner

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record as a note. Of a library's errors only the first line, which says what happened."""
        from zssbir_cli.cli.console import note

        if record.name == "zssbir" and not self.owner:
            return
        text = " ".join(record.getMessage().split())
        note(text if record.name == "zssbir" else f"{record.name}: {text[:200]}")


def quiet_libraries(debug: bool) -> None:
    """One handler for our own logger, and of libraries only errors; with `debug` everything as they wish.

    `PYTHONWARNINGS` and `-W` stand. Must be called before PyTorch and OpenCV are imported, whose C++ parts read
    their environment then.
    """
    if debug:
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name, level in (("zssbir", logging.WARNING), ("", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [h for h in logger.handlers if not isinstance(h, _Notes)] + [_Notes(name, level)]
