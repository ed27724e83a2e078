"""Entry point: runs the app; the one place where an error becomes a line and an exit code."""

import os
import sys


def main() -> None:
    """Run the `zssbir` command line and exit with its code (0 ok, 1 bug, 2 usage, 3 data, 4 checkpoint, 5
    diverged, 130 interrupted)."""
    from zssbir_cli.cli.app import app
    from zssbir_cli.compute.memory import keep_freed_memory
    from zssbir_cli.errors import ZssbirError

    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("ZSSBIR_DEBUG"))
    argv = [a for a in sys.argv[1:] if a != "--debug"]
    keep_freed_memory()
    try:
        app(argv, prog_name="zssbir")
    except ZssbirError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            _fail(f"{os.fsdecode(error.filename)}: {error.strerror}; check the path and its permissions", 3)
        _fail(f"{type(error).__name__}: {error} (this is a bug in zssbir; run again with --debug)", 1)


def _fail(message: str, code: int) -> None:
    print("zssbir: error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
