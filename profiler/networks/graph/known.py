"""The derived networks that this process knows, by the source that their specs name.

A spec says where its network comes from and is not enough to run anything; what the user named in this
process is. Graphs are made when they are first needed: with spec and template in the cache, never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from joulemap import InputError

from ....datasets import NetworkSpec
from ..importing import ImportedGraph
from .derive import DerivedNetwork, derive_again

# Returns the graph of a network at a batch.
Importer: TypeAlias = Callable[[int], ImportedGraph]

_IMPORTERS: dict[str, Importer] = {}
_BY_SOURCE: dict[str, DerivedNetwork] = {}
_BY_SPEC: dict[str, DerivedNetwork] = {}


def remember(derived: DerivedNetwork, importer: Importer | None = None) -> None:
    """Let `derived_of` find a network by its spec, in this process.

    Args:
        derived: It takes the place of another one of the same source.
        importer: Makes its graph at other batches; None where nobody can.
    """
    source = derived.spec.source
    before = _BY_SOURCE.get(source)
    if before is not None and before.graph is not derived.graph:
        _forget(source)
    if importer is not None:
        _IMPORTERS[source] = importer
    _BY_SOURCE[source] = derived
    _BY_SPEC[derived.spec.fingerprint] = derived


def remember_importer(source: str, importer: Importer) -> None:
    """Let `derived_of` make the graph of a source when it is first needed.

    Args:
        source: As in the specs.
        importer: Makes the network's graph at a batch.
    """
    _forget(source)
    _IMPORTERS[source] = importer


def is_known(spec: NetworkSpec) -> bool:
    """Return whether the network that a spec describes can be derived in this process."""
    return spec.source in _BY_SOURCE or spec.source in _IMPORTERS


def derived_of(spec: NetworkSpec | DerivedNetwork, batch: int = 1) -> DerivedNetwork:
    """Return the network that a spec was derived from, solved for the widths of the spec.

    Args:
        spec: Of a network that was named or derived in this process, also with other widths frozen
            or other steps; or the derived network itself.
        batch: Samples per call of its graph.

    Raises:
        InputError: No network of this source was named in this process, or it has changed.
    """
    if isinstance(spec, DerivedNetwork):
        return spec
    if batch == 1 and spec.fingerprint in _BY_SPEC:
        return _BY_SPEC[spec.fingerprint]
    known, importer = _BY_SOURCE.get(spec.source), _IMPORTERS.get(spec.source)
    if batch == 1 and known is not None:
        graph = known.graph
    elif importer is not None:
        graph = importer(batch)
    else:
        raise InputError(
            f"the network '{spec.name[:60]}' of source '{spec.source[:100]}' is not at hand in this "
            "process; name it first: networks.get with its file or name, or "
            "networks.from_module(module, example_inputs)"
        )
    found = derive_again(graph, spec, is_same_batch=batch == 1)
    if batch == 1:
        _BY_SOURCE.setdefault(spec.source, found)
        _BY_SPEC[spec.fingerprint] = found
    return found


def _forget(source: str) -> None:
    _BY_SOURCE.pop(source, None)
    _IMPORTERS.pop(source, None)
    for key in [key for key, item in _BY_SPEC.items() if item.spec.source == source]:
        del _BY_SPEC[key]
