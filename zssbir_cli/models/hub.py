"""Downloads of pretrained weights: once, into the cache of their hub; without a network, a reason within seconds."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from zssbir_cli.files import reason

HUB = "https://huggingface.co"
PATIENCE = 5.0
"""Seconds to wait for a connection."""


class NotDownloaded(Exception):
    """Weights are not in the cache and cannot be downloaded; the message says why."""


def endpoint() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT") or HUB


def cached_file(repo: str, names: Sequence[str]) -> Path | None:
    """The first of `names` of a hub repository (`owner/name`, perhaps `@revision`) that is in the cache."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repo.partition("@")
    for file in names:
        found = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_file(repo: str, names: Sequence[str]) -> Path:
    """As `cached_file`, but downloaded if need be, with a progress bar on a terminal. Raises NotDownloaded."""
    if (found := cached_file(repo, names)) is not None:
        return found
    if why := unreachable(endpoint()):
        raise NotDownloaded(why)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, logging  # type: ignore[attr-defined]

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries are no news to a user
    if not sys.stderr.isatty():
        disable_progress_bars()
    name, _, revision = repo.partition("@")
    for file in names:
        try:
            return Path(hf_hub_download(name, file, revision=revision or None, endpoint=endpoint()))
        except Exception as error:  # of the hub, of HTTP, of the disk
            absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if not absent:
                raise NotDownloaded(reason(error)) from error
    raise NotDownloaded(f"{repo} has none of {', '.join(names)}")


def url_file(url: str) -> Path:
    """A file by its address: from torch's cache, or downloaded into it. Raises NotDownloaded."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if path.is_file():
        return path
    if why := unreachable(url):
        raise NotDownloaded(why)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
    except Exception as error:
        raise NotDownloaded(reason(error)) from error
    return path


def unreachable(url: str) -> str:
    """Why a host cannot be reached from here, found out by one connection; "" when it can."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    proxies = getproxies()
    proxy = "" if proxy_bypass(host) else proxies.get(parts.scheme) or proxies.get("all") or ""
    via = ""
    if proxy:
        at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port, via = at.hostname or "", at.port or 80, f"the proxy {at.hostname}:{at.port or 80} "
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except OSError as error:
        if via:
            return f"{via}does not answer ({reason(error)}); see HTTPS_PROXY and ALL_PROXY"
        return f"no network: {host} cannot be reached ({reason(error)})"
    return ""
