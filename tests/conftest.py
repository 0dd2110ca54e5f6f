"""What holds for all tests."""

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def _collections_pass_over_what_was_there_before():
    """Leave out of collections what imports and earlier modules made: a test that collects would go through all of it."""
    gc.collect()
    gc.freeze()
