"""The derived networks that this process knows, by the source that their specs name."""

from __future__ import annotations

from joulemap import InputError

from ....datasets import NetworkSpec
from .derive import DerivedNetwork, derive_again

_BY_SOURCE: dict[str, DerivedNetwork] = {}
_BY_SPEC: dict[str, DerivedNetwork] = {}


def remember(derived: DerivedNetwork) -> None:
    """Let `derived_of` find a network by its spec, in this process.

    Args:
        derived: It takes the place of another one of the same source.
    """
    source = derived.spec.source
    before = _BY_SOURCE.get(source)
    if before is not None and before.graph is not derived.graph:
        for key in [key for key, item in _BY_SPEC.items() if item.spec.source == source]:
            del _BY_SPEC[key]
    _BY_SOURCE[source] = derived
    _BY_SPEC[derived.spec.fingerprint] = derived


def is_known(spec: NetworkSpec) -> bool:
    """Return whether the network that a spec describes was derived in this process."""
    return spec.source in _BY_SOURCE


def derived_of(spec: NetworkSpec | DerivedNetwork) -> DerivedNetwork:
    """Return the network that a spec was derived from, solved for the widths of the spec.

    Args:
        spec: Of a network that was derived in this process, also with other widths frozen or other
            steps; or the derived network itself.

    Raises:
        InputError: No network of this source was derived in this process, or it has changed.
    """
    if isinstance(spec, DerivedNetwork):
        return spec
    found = _BY_SPEC.get(spec.fingerprint)
    if found is None:
        known = _BY_SOURCE.get(spec.source)
        if known is None:
            raise InputError(
                f"the network '{spec.name[:60]}' of source '{spec.source[:100]}' was not derived in "
                "this process; call networks.from_module(module, example_inputs), or networks.get "
                "with its file or name, and use the spec that it returns"
            )
        found = _BY_SPEC[spec.fingerprint] = derive_again(known.graph, spec)
    return found
