"""The Hugging Face hub: asked where it can be reached, else only what is stored here."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

from holdfast.errors import reason

__all__ = ["asking_the_hub", "why_not"]

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


@contextmanager
def asking_the_hub(local: bool = False) -> Iterator[bool]:
    """Let the block ask the hub if it answers within seconds; else it finds what is stored.

    Without a network the hub's own client tries again and again, for most of a minute.

    Parameters
    ----------
    local : bool
        Ask nobody.

    Yields
    ------
    bool
        Whether the hub is asked.

    Examples
    --------
    >>> with asking_the_hub(local=True):
    ...     constants.HF_HUB_OFFLINE
    True
    """
    before = constants.HF_HUB_OFFLINE
    levels = {name: logging.getLogger(name).level for name in ("huggingface_hub", "timm")}
    constants.HF_HUB_OFFLINE = before or local or not _reachable()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield not constants.HF_HUB_OFFLINE
    finally:
        constants.HF_HUB_OFFLINE = before
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def why_not(error: BaseException, local: bool, asked: bool) -> str:
    """Say in one line why something could not be had.

    Examples
    --------
    >>> why_not(OSError("gone"), local=False, asked=False)
    'the Hugging Face hub cannot be asked, and nothing of it is stored under $HF_HOME'
    """
    if local or asked:
        return reason(error)
    return "the Hugging Face hub cannot be asked, and nothing of it is stored under $HF_HOME"


def _reachable(seconds: float = 5) -> bool:
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES):
        return True  # the proxy knows names that this machine need not know
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=seconds):
            return True
    except OSError:
        return False
