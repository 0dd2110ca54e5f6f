"""Closes what the adapters' tests share."""

import pytest
from adapter_kit import runner


@pytest.fixture(scope="session", autouse=True)
def _close_the_runner():
    yield
    runner.close()
