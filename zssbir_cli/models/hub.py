"""Downloads of pretrained weights: without a network, fail at once instead of retrying for half a minute."""

import os
import socket

HUB = "huggingface.co"


def go_offline_without_network() -> None:
    """Tell huggingface_hub to use its cache only when the hub's name does not resolve (and no proxy could)."""
    if any(
        os.environ.get(name)
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT")
    ):
        return
    try:
        socket.getaddrinfo(HUB, 443)
    except OSError:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True
