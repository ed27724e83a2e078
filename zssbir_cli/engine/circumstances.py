"""Under which circumstances a run was made: versions, machine, git state."""

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from zssbir_cli import __version__
from zssbir_cli.compute.precision import cpu_says


def circumstances(device: torch.device) -> dict[str, Any]:
    """For run.json: when, with which versions, on which machine."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "zssbir": __version__,
        "versions": {n: version(n) for n in ("torch", "torchvision", "timm", "numpy", "h5py")},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "git": git_state(),
    }


def device_name(device: torch.device) -> str:
    """The device as one would write it into a table."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = cpu_says("model name") or platform.processor() or platform.machine()
    return f"cpu ({model}, {os.cpu_count()} cores)"


def git_state() -> str:
    """Commit of the source checkout that runs (with `-dirty`), or an empty text."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return out.stdout.strip()
