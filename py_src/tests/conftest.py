from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from support.vm import VM

from snex._etf.encoder import encode, encode_pure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snex._etf.encoder import Encoder

# A shell has what it runs in the background ignore SIGINT, and so would all interpreters of these tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def vm() -> Iterator[VM]:
    """An interpreter that has said that it is ready."""
    with VM() as machine:
        machine.ready()
        yield machine


@pytest.fixture(autouse=True)
def _custom_encoder() -> Iterator[None]:
    """Leave no custom encoder behind."""
    from snex._etf.encoder import Settings

    before: Encoder | None = Settings.custom_encoder
    yield
    Settings.custom_encoder = before


@pytest.fixture(params=[encode, encode_pure], ids=["encode", "pure"])
def encoder(request: pytest.FixtureRequest) -> Any:
    """Both encoders: the one that is used, and the one in Python."""
    return request.param
