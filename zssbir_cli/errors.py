"""Every error a user can cause, each with the exit code of the command line.

A message is one line that names the file, the value and the next step. Anything that is not a
`ZssbirError` is a bug and exits with 1.
"""


class ZssbirError(Exception):
    """Base of all user errors; `exit_code` is the process's exit code."""

    exit_code = 2


class UsageError(ZssbirError):
    """A wrong argument, option or recipe (exit code 2)."""

    exit_code = 2


class DataError(ZssbirError):
    """A data set, archive, shard, manifest, image or embedding file that cannot be used (exit code 3)."""

    exit_code = 3


class CheckpointError(ZssbirError):
    """A checkpoint or weight file that cannot be used (exit code 4)."""

    exit_code = 4


class DivergedError(ZssbirError):
    """Training stopped because the loss is no longer finite (exit code 5)."""

    exit_code = 5


class Interrupted(ZssbirError):
    """The user asked to stop (exit code 130); the message says what was kept and how to continue."""

    exit_code = 130
