"""Which places of which parameters belong to a channel, on small networks of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from joulemap import InputError
from joulemap.profiler.networks.graph.channel_groups import (
    ChannelMember,
    channel_groups,
    indices_of,
    staying_places,
)

from .test_derive import NETWORKS, derived


def test_a_channel_is_a_row_a_bias_and_a_column() -> None:
    groups = channel_groups(derived("c2f")[1])
    assert [len(own) for own in groups.values()] == [8, 8, 12]
    last = groups["cv1"][3]
    assert (last.width, last.channels) == ("cv1", (3,))
    assert last.members == (
        ChannelMember("cv1.weight", 0, (3, 11)),
        ChannelMember("cv1.bias", 0, (3, 11)),
        ChannelMember("m.weight", 1, (3,)),
        ChannelMember("cv2.weight", 1, (3, 11)),
    )


def test_channels_of_groups_go_together() -> None:
    network = derived("shuffle")[1]
    groups = channel_groups(network)
    first = groups["a"][0]
    assert first.channels == (0, 4)
    assert ChannelMember("a.weight", 0, (0, 4)) in first.members
    assert ChannelMember("g.weight", 1, (0,)) in first.members
    staying_places(network, {"a": [0, 1, 4, 5]})
    with pytest.raises(InputError, match=r"channels 1, 5 of width 'a' stay or go together"):
        staying_places(network, {"a": [0, 1, 4]})


def test_gates_of_a_recurrent_layer_and_heads_belong_to_their_channel() -> None:
    first = channel_groups(derived("recurrent")[1])["lstm"][2]
    assert ChannelMember("lstm.weight_ih_l0", 0, (2, 10, 18, 26)) in first.members
    assert ChannelMember("head.weight", 1, (2, 10)) in first.members
    head = channel_groups(derived("attention")[1])["attn_in_proj_heads"][1]
    places = tuple(16 * part + 4 + place for part in range(3) for place in range(4))
    assert ChannelMember("attn.in_proj_weight", 0, places) in head.members


@pytest.mark.parametrize("name", NETWORKS)
def test_what_stays_has_as_many_entries_as_the_spec_says(name: str) -> None:
    module, network = derived(name)
    draw = np.random.default_rng(0)
    spec = network.spec
    for _ in range(4):
        widths = [
            int(draw.choice(np.arange(width.min, width.max + 1, width.multiple)))
            for width in spec.widths
        ]
        kept = {
            width.name: np.concatenate(
                [
                    group.channels
                    for group in draw.permutation(
                        np.array(channel_groups(network)[width.name], dtype=object)
                    )[: number * len(channel_groups(network)[width.name]) // width.max]
                ]
            )
            for width, number in zip(spec.widths, widths, strict=True)
        }
        staying = staying_places(network, kept)
        total = 0
        for path, parameter in module.named_parameters():
            indices = indices_of(network.space.solution.axes[path], staying)
            total += int(
                np.prod(
                    [
                        len(indices[axis]) if axis in indices else size
                        for axis, size in enumerate(parameter.shape)
                    ]
                )
            )
        assert total == spec.at(widths).params


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"cv9": 1}, "'cv9' is no width"),
        ({"m": 0}, "'m' of c2f is 0, outside 1..8"),
        ({"m": []}, "nothing stays of width 'm'"),
        ({"m": [0, 8]}, "width 'm' has 8 channels, counted from 0; 8 is none"),
        ({"m": [1, 1]}, "given twice"),
        ({"m": ["a"]}, "must be indices"),
        ({"m": 1.5}, "must be indices"),
    ],
)
def test_what_cannot_stay_is_said(kept: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        staying_places(derived("c2f")[1], kept)  # type: ignore[arg-type]
