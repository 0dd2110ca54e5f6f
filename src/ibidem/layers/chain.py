"""The chain: layers composed once, outermost first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ibidem.core.call import Call, Outcome
from ibidem.core.policies import Policies
from ibidem.layers.execute import Execute

Chain = Callable[[Call], Awaitable[Outcome]]


class Chains:
    """The layers of a guard, composed for each combination of policies that its tools have.

    A layer that says `wanted(policies) -> bool` is left out where it would only hand on: a call that asks for nothing
    then pays for nothing.

    Args:
        layers: Outermost first; the last is `Execute`.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers
        self._composed: dict[int, Chain] = {}

    def of(self, policies: Policies) -> Chain:
        """Give the chain for calls with these policies."""
        found = self._composed.get(policies.shape)
        if found is None:
            wanted = [layer for layer in self._layers if not hasattr(layer, "wanted") or layer.wanted(policies)]
            found = self._composed[policies.shape] = _composed(wanted)
        return found


def _composed(layers: Sequence[Any]) -> Chain:
    chain: Chain = Execute()
    for layer in reversed(layers[:-1]):
        chain = _around(layer, chain)
    return chain


def _around(layer: Any, inner: Chain) -> Chain:
    def step(call: Call) -> Awaitable[Outcome]:
        return layer(call, inner)  # type: ignore[no-any-return]

    return step
