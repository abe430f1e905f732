"""Parts of a node replaced by name, in every module of its composition that uses them: how tests plant bugs and ears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import agent.main
from agent.assembly import books, headquarters, onsite, sight

COMPOSITION: tuple[ModuleType, ...] = (agent.main, books, sight, headquarters, onsite)


def homes(name: str) -> list[ModuleType]:
    """The modules that use a part of that name. Raises RuntimeError when there is none: the test must follow the code."""
    found = [module for module in COMPOSITION if hasattr(module, name)]
    if not found:
        raise RuntimeError(f"no module of the node's composition has {name} any more: whoever plants it must follow")
    return found


@contextmanager
def planted(parts: Mapping[str, Any]) -> Iterator[None]:
    """The parts stand in for the node's own meanwhile."""
    with ExitStack() as stack:
        for name, part in parts.items():
            for home in homes(name):
                stack.enter_context(mock.patch.object(home, name, part))
        yield
