"""The chain: layers composed once, outermost first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ibidem.core.call import Call, Outcome
from ibidem.layers.execute import Execute

Chain = Callable[[Call], Awaitable[Outcome]]


def compose(layers: Sequence[Any]) -> Chain:
    """Compose layers into one step; the last of them is `Execute`."""
    chain: Chain = Execute()
    for layer in reversed(layers[:-1]):
        chain = _around(layer, chain)
    return chain


def _around(layer: Any, inner: Chain) -> Chain:
    def step(call: Call) -> Awaitable[Outcome]:
        return layer(call, inner)  # type: ignore[no-any-return]

    return step
