import socket
import time

import pytest
from huggingface_hub import constants

from holdfast import hub


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_a_hub_that_listens_is_asked(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        with hub.asking_the_hub() as asked:
            assert asked
            assert not constants.HF_HUB_OFFLINE
        with hub.asking_the_hub(local=True) as asked:
            assert not asked
    start = time.monotonic()
    with hub.asking_the_hub() as asked:  # nobody listens any more
        assert not asked
        assert constants.HF_HUB_OFFLINE
    assert time.monotonic() - start < 5
    assert not constants.HF_HUB_OFFLINE


def test_a_proxy_may_know_the_way(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    with hub.asking_the_hub() as asked:
        assert asked
