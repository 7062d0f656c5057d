"""The network that a user asks to have measured: named by themselves, and what its spec says."""

from __future__ import annotations

from joulemap import InputError

from ...datasets import NetworkSpec
from . import factories
from .definition import Resolution
from .factories import Factory
from .graph.foreign_spec import Choices
from .graph.known import is_known
from .registry import get, is_unchanged_zoo


def chosen_network(
    network: str | Factory | NetworkSpec,
    resolution: Resolution | None = None,
    *,
    is_run: bool,
    allow_code: bool = False,
    choices: Choices | None = None,
) -> NetworkSpec:
    """Return the spec of what is to be measured, compared with what its source builds.

    Args:
        network: What `networks.get` takes, or a spec.
        resolution: Height and width of the input; the network's own when None.
        is_run: Whether the device runs networks; a simulated one computes costs from widths, and
            the spec of a network that is not here will do.
        allow_code: Run the code that a spec names although only the spec has named it.
        choices: Inputs, frozen widths and steps of a network without a spec of its own.

    Raises:
        InputError: There is no such network, its code is not to be run, or the spec is not the
            network that its source builds.
    """
    if isinstance(network, NetworkSpec):
        if resolution is not None and network.input_shape[-2:] != _sides(resolution):
            raise InputError(
                f"the spec of {network.name} has the input {network.input_shape}, and resolution is "
                f"{resolution}; leave out resolution, or name the network in place of its spec"
            )
        spec = network
        if allow_code:
            factories.allow(spec.source)
    else:
        spec = get(
            network,
            resolution,
            inputs=choices.inputs if choices else (),
            freeze=choices.freeze if choices else (),
            multiples=choices.multiples if choices else None,
        )
    _check_widths_are_used(spec)
    if is_known(spec):  # derived from the network itself, and compared with it as a template
        return spec
    is_here = factories.is_named(spec.source)
    if (is_run or is_here) and not is_unchanged_zoo(spec):
        from .module_check import check_module  # imports torch

        check_module(spec)
    return spec


def name_of_network(network: str | Factory | NetworkSpec) -> str:
    """Return what a network is called, as typed; of a spec or a function, what it comes from.

    Example:
        >>> name_of_network("lenet5")
        'lenet5'
    """
    if isinstance(network, str):
        return network
    if isinstance(network, NetworkSpec):
        return network.source
    function = getattr(network, "__qualname__", type(network).__qualname__)
    return f"{getattr(network, '__module__', None) or '__main__'}:{function}"


def _sides(resolution: Resolution) -> tuple[int, ...]:
    return (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)


def _check_widths_are_used(spec: NetworkSpec) -> None:
    """Do nothing if each width is a size of some layer.

    Raises:
        InputError: A width is none: costs cannot depend on it.
    """
    used: set[str] = set()
    for layer in spec.layers:
        used |= layer.in_channels.names | layer.out_channels.names | layer.groups.names
    if unused := [name for name in spec.width_names if name not in used]:
        raise InputError(
            f"no layer of {spec.name[:60]} uses the width '{unused[0][:60]}', so nothing that is "
            "measured would depend on it; leave it out of the spec, or name it in the layers"
        )
