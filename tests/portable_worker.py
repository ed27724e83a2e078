"""The main path in a process that lacks what Windows lacks: run as `python portable_worker.py FOLDER` by
test_portable.py.

Gone are the modules `fcntl` and `resource`, the functions and constants of `os` and `signal` that only POSIX systems
have, and the fork start method. A file that this process has mapped or open cannot be replaced, renamed or removed,
symbolic links are not permitted, names have no `:`, and text is not opened without an encoding.
"""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.modules["fcntl"] = sys.modules["resource"] = sys.modules["pwd"] = sys.modules["grp"] = None  # type: ignore[assignment]

import h5py  # noqa: E402, F401
import timm  # noqa: E402, F401
import typer  # noqa: E402, F401
from torch.utils.data._utils import signal_handling  # noqa: E402

OS = """fork forkpty getuid geteuid getgid getegid setsid getsid killpg getpgid nice chown fchown lchown pread preadv
pwrite pwritev posix_fallocate posix_fadvise sendfile mkfifo mknod uname sysconf getloadavg
sched_getaffinity sched_setaffinity O_DIRECTORY O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_SYNC fdatasync copy_file_range
memfd_create"""
SIGNALS = "SIGCHLD SIGSTOP SIGCONT SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGPIPE alarm setitimer pthread_kill"


def take_away() -> None:
    """Delete the names and let the rest behave as on Windows."""
    for module, names in ((os, OS), (signal, SIGNALS)):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    signal_handling.IS_WINDOWS = True
    multiprocessing.set_start_method("spawn")
    multiprocessing.get_all_start_methods = lambda: ["spawn"]  # type: ignore[assignment]
    warnings.filterwarnings("error", category=EncodingWarning, module="zssbir_cli")
    for name in ("replace", "rename", "remove", "unlink"):
        setattr(os, name, _unless_in_use(name, getattr(os, name)))
    os.symlink = _not_permitted
    sys.addaudithook(_names)


def in_use() -> set[str]:
    """Files that this process has mapped or open, as Linux knows them."""
    mapped = {
        line.split(maxsplit=5)[5]
        for line in Path("/proc/self/maps").read_text("utf-8").splitlines()
        if len(line.split(maxsplit=5)) == 6
    }
    handles = {os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()}
    return {p for p in mapped | handles if p.startswith("/")}


def _unless_in_use(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        for path in args[:2]:
            real = os.path.realpath(path) if not isinstance(path, int) and "dir_fd" not in kwargs else ""
            used = [p for p in in_use() if p == real or p.startswith(real + "/")] if real else []
            if used:
                raise PermissionError(13, f"os.{name}: used by this process", used[0])
        return function(*args, **kwargs)

    return call


def _not_permitted(*_: Any, **__: Any) -> None:
    raise OSError(1314, "A required privilege is not held by the client")


def _names(event: str, args: tuple[Any, ...]) -> None:
    """No name of ours may hold what Windows does not allow."""
    if event in ("open", "os.mkdir", "os.rename") and isinstance(args[0], str | os.PathLike | bytes):
        for path in args[:2] if event == "os.rename" else args[:1]:
            text = os.fsdecode(path)
            if not text.startswith(("/proc", "/sys", "/dev")) and set(text) & set(':*?"<>|'):
                raise OSError(22, "a name that Windows does not allow", text)


def main(folder: Path) -> None:
    """prepare, train, resume, embed twice, eval, search, each as from the command line."""
    os.chdir(folder)
    take_away()
    from zssbir_cli.__main__ import main as zssbir
    from zssbir_cli.data import embeddings

    embeddings.MAP_ROWS = False

    def run(*words: str) -> None:
        print("zssbir", *words, flush=True)
        sys.argv = ["zssbir", "--debug", *words]
        try:
            zssbir()
        except SystemExit as done:
            if done.code:
                raise

    device = ("--device", "cpu", "--workers", "0")
    run("prepare", "pics", "--unseen", "2", "--val-classes", "0", "--workers", "2")
    run("train", "--recipe", "r.yaml", "--device", "cpu", "--set", "train.epochs=1")
    run("embed", "--images", "photos", "--out", "photos.h5", *device)
    (folder / "photos/0.jpg").unlink()
    run("embed", "--images", "photos", "--out", "photos.h5", *device)
    run("eval", *device)
    run("search", "query.png", "--gallery", "photos", "--out", "found.html", *device)
    (folder / "photos/1.jpg").unlink()
    run("search", "query.png", "--gallery", "photos", "--out", "found.html", *device)
    run("runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
