"""What libraries log or warn of does not reach users; what zssbir itself logs does, as its other notes."""

import logging
import os
import sys
import warnings


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
