"""A process knows the networks that it derived by their specs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from joulemap import InputError
from joulemap.profiler.networks.graph import derive
from joulemap.profiler.networks.graph.known import derived_of, is_known, remember
from joulemap.profiler.networks.importing import import_module


def test_a_network_is_found_by_its_spec_also_with_fewer_widths() -> None:
    module = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2))
    graph = import_module(module, torch.zeros(1, 3), name="three", source="factory:known:three")
    derived = derive(graph)
    spec = derived.spec
    assert derived_of(derived) is derived
    assert not is_known(spec)
    with pytest.raises(InputError, match="is not at hand in this process"):
        derived_of(spec)
    remember(derived)
    assert derived_of(spec) is derived
    fewer = derive(graph, freeze=(spec.width_names[0],)).spec
    assert derived_of(fewer).spec == fewer
    assert derived_of(fewer) is derived_of(fewer)
    with pytest.raises(InputError, match="is not at hand"):
        derived_of(replace(spec, source="factory:known:other"))
