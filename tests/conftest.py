"""What holds for all tests."""

import gc


def pytest_collection_finish() -> None:
    """Leave out of collections what the imports made: tests that collect would each go through the frameworks again."""
    gc.collect()
    gc.freeze()
