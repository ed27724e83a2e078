"""`zssbir doctor`: what this machine, a prepared set and a run are fit for, and how to fix what is not."""

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from zssbir_cli import __version__
from zssbir_cli.errors import UsageError, ZssbirError
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import AnyPath

OK, WARNING, PROBLEM = "ok", "warning", "problem"
LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "h5py", "opencv-python-headless")
EXTRAS = {
    "web": "starlette", "onnx": "onnxruntime", "heic": "pillow_heif", "download": "gdown", "tensorboard": "tensorboard",
    "text": "transformers", "lance": "lancedb",
}  # fmt: skip
"""Extra -> a module that it brings."""
SCRATCH = 5e9
"""Bytes of disk below which a download or a prepared set may not fit."""
NONE_LEFT = 2e8


@dataclass(frozen=True)
class Finding:
    """One line of the check-up: what was looked at, what was found, and what to do where that is not `ok`."""

    what: str
    found: str
    state: str = OK
    mend: str = ""
    error: type[ZssbirError] = UsageError
    """The error that a problem amounts to."""

    @classmethod
    def unless(cls, fine: bool, what: str, found: str, mend: str, state: str = WARNING) -> "Finding":
        """`ok` if that is `fine`, else with what to do."""
        return cls(what, found) if fine else cls(what, found, state, mend)


def diagnose(
    *,
    data: AnyPath | None = None,
    run: AnyPath | None = None,
    runs: AnyPath = "runs",
    network: bool = True,
    progress: Progress = silent,
) -> list[Finding]:
    """Check this machine and, where they are named, a prepared set and a run; quick checks come first.

    network: False leaves the network alone. Nothing is raised for what is wrong: that is a finding.
    """
    from zssbir_cli.workflows import doctor_checks

    steps: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("versions", versions),
        ("disk", lambda: disk(Path(runs))),
        ("machine", doctor_checks.machine),
        ("devices", doctor_checks.devices),
        ("network and weights", lambda: doctor_checks.downloads(network)),
    ]
    if data is not None:
        steps.append(("data", lambda: doctor_checks.prepared_set(Path(data))))
    if run is not None:
        steps.append(("run", lambda: doctor_checks.trained_run(run, Path(runs))))
    found: list[Finding] = []
    for number, (name, look) in enumerate(steps):
        progress(f"checking {name}", number, len(steps))
        try:
            found += look()
        except ZssbirError as error:
            found.append(Finding(name, str(error), PROBLEM, error=type(error)))
        except (OSError, RuntimeError, ImportError) as error:
            found.append(Finding(name, f"{type(error).__name__}: {error}", PROBLEM, "report this"))
    return found


def versions() -> Iterator[Finding]:
    """zssbir, Python, the libraries and the extras."""
    yield Finding("zssbir", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding("Python", f"{platform.python_version()} on {platform.platform()}")
    have = []
    for name in LIBRARIES:
        try:
            have.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            if name.startswith("opencv") and find_spec("cv2") is not None:
                have.append("another build of OpenCV")
            else:
                yield Finding(name, "not installed", PROBLEM, "install zssbir again: python -m pip install .")
    yield Finding("libraries", ", ".join(have))
    extras = [extra for extra, module in EXTRAS.items() if find_spec(module) is not None]
    lack = [extra for extra in EXTRAS if extra not in extras]
    more = f"; not installed: {', '.join(lack)} (python -m pip install '.[{lack[0]}]')" if lack else ""
    yield Finding("extras", (", ".join(extras) or "none") + more)


def disk(runs: Path) -> Iterator[Finding]:
    """Room and permission where data sets and runs go, and room for the loader's shared memory."""
    from zssbir_cli.files import existing_parent
    from zssbir_cli.progress import rough_size

    for what, place in (("disk here", Path()), ("disk for runs", existing_parent(runs))):
        if what == "disk for runs" and os.stat(place).st_dev == os.stat(".").st_dev:  # noqa: PTH116
            continue
        free = shutil.disk_usage(place).free
        found = f"{rough_size(free)} free in {place.resolve()}"
        if not os.access(place, os.W_OK):
            found = f"{place.resolve()} cannot be written"
            yield Finding(what, found, PROBLEM, "work in a folder of your own")
        elif free < NONE_LEFT:
            yield Finding(what, found, PROBLEM, "make room before you prepare or train")
        else:
            mend = "enough for small sets; name another disk with --out and --runs"
            yield Finding.unless(free >= SCRATCH, what, found, mend)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        mend = "loading processes may die: docker run --shm-size=1g, or --set data.workers=0"
        yield Finding.unless(free >= 256e6, "shared memory", f"{rough_size(free)} free in {shared}", mend)
