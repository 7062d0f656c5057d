import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.models.systolic.energy import (
    ConvGeometry,
    LayerEnergy,
    Mask,
    conv_energy,
    linear_energy,
)
from joulemap.models.systolic.hardware import PRESETS, SystolicHardware, hardware_named

# Energies that the method's released code computes, layer by layer.
REFERENCE = json.loads(
    (Path(__file__).parents[2] / "vectors" / "systolic_reference_energies.json").read_text()
)
EYERISS = PRESETS["eyeriss"]
CASES = [
    (network, pattern)
    for network, patterns in REFERENCE["networks"].items()
    for pattern, content in patterns.items()
    if isinstance(content, dict) and "layers" in content
    # The order in which the single layers' random masks were drawn is not known.
    if pattern != "chan_even_masked"
    and (network != "unit_layers" or pattern in ("dense", "hash50"))
]


def hashed(shape: tuple[int, ...]) -> Mask:
    index = np.arange(np.prod(shape), dtype=np.uint64) * np.uint64(2654435761)
    return (index % np.uint64(2**32) < np.uint64(2**31)).reshape(shape)


def weight_masks(pattern: str, shapes: list[tuple[int, ...]]) -> Iterator[Mask | None]:
    share = {"rand50": 0.5, "inputmask50_rand50": 0.5, "rand10": 0.1}.get(pattern)
    generator = torch.Generator().manual_seed(1 if pattern == "rand10" else 0)
    for shape in shapes:
        if share is not None:
            yield (torch.rand(shape, generator=generator) < share).numpy()
        else:
            yield hashed(shape) if pattern == "hash50" else None


def shape_of(layer: dict[str, Any]) -> tuple[int, ...]:
    if layer["type"] == "conv":
        return geometry(layer).weight_shape
    return (layer["out"], layer["in"])


def geometry(layer: dict[str, Any]) -> ConvGeometry:
    def pair(name: str) -> tuple[int, int]:
        return (layer[name], layer[name])

    return ConvGeometry(
        layer["c_in"],
        layer["c_out"],
        (layer["h"], layer["w"]),
        pair("kernel"),
        pair("stride"),
        pair("padding"),
        groups=layer["groups"],
    )


@pytest.mark.parametrize(("network", "pattern"), CASES)
def test_every_layer_agrees_with_the_released_code(network: str, pattern: str) -> None:
    layers = REFERENCE["networks"][network][pattern]["layers"]
    generator = torch.Generator().manual_seed(0)
    masks = weight_masks(pattern, [shape_of(layer) for layer in layers])
    for layer, weight_mask in zip(layers, masks, strict=True):
        if weight_mask is not None:
            digest = hashlib.sha256(weight_mask.astype(np.uint8).tobytes()).hexdigest()
            assert digest == layer["weight_mask_sha256"]
        for variant, is_exact in (("reference_exact", True), ("reference_relaxed", False)):
            if layer["type"] != "conv":
                energy = linear_energy(EYERISS, layer["in"], layer["out"], weight_mask=weight_mask)
            else:
                conv, input_mask = geometry(layer), None
                if pattern.startswith("inputmask50"):
                    if is_exact:
                        drawn = torch.rand(conv.input_shape, generator=generator) < 0.5
                        layer["mask"] = drawn.numpy()
                    input_mask = layer["mask"]
                energy = conv_energy(
                    EYERISS,
                    conv,
                    weight_mask=weight_mask,
                    input_mask=input_mask,
                    is_exact=is_exact,
                )
            expected = layer[variant]
            assert energy.weight == pytest.approx(expected["W"], rel=1e-6)
            assert energy.input == pytest.approx(expected["X"], rel=1e-6)
            assert energy.computation == pytest.approx(expected["C"], rel=1e-6)
            assert energy.total == pytest.approx(expected["total"], rel=1e-6)


def slow_counts(conv: ConvGeometry, weights: Mask, inputs: Mask) -> tuple[int, int]:
    """Non-zeros of the unfolded input and effective multiplications, by torch."""
    x = torch.from_numpy(inputs)[None].double()
    unfolded = torch.nn.functional.unfold(
        x, conv.kernel_size, padding=conv.padding, stride=conv.stride, dilation=conv.dilation
    )
    macs = torch.nn.functional.conv2d(
        x,
        torch.from_numpy(weights).double(),
        padding=conv.padding,
        stride=conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
    )
    return int(unfolded.sum()), int(macs.sum())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_closed_forms_equal_unfold_and_conv(
    seed: int,
    channels: tuple[int, int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    inputs, outputs, groups = channels
    conv = ConvGeometry(
        inputs * groups, outputs * groups, size, kernel, stride, padding, dilation, groups
    )
    rng = np.random.default_rng(seed)
    weight_mask, input_mask = (
        rng.random(conv.weight_shape) < 0.6,
        rng.random(conv.input_shape) < 0.6,
    )
    reads, macs = slow_counts(conv, weight_mask, input_mask)
    one_each = SystolicHardware(mac_energy=1.0)
    energy, relaxed = (
        conv_energy(
            one_each, conv, weight_mask=weight_mask, input_mask=input_mask, is_exact=is_exact
        )
        for is_exact in (True, False)
    )
    assert energy.computation == macs
    positions = conv.out_size[0] * conv.out_size[1]
    moved = int(input_mask.sum()) + positions * conv.out_channels
    assert energy.input == pytest.approx(200 * moved + 6 * reads + reads * outputs)
    assert relaxed.computation >= energy.computation
    assert (relaxed.weight, relaxed.input) == (energy.weight, energy.input)


def test_counts_beyond_what_32_bits_of_a_float_hold_are_exact() -> None:
    size = (4200, 4200)
    mask = np.ones((1, *size), dtype=bool)
    conv = ConvGeometry(1, 1, size, (1, 1))
    full = conv_energy(EYERISS, conv)
    assert conv_energy(EYERISS, conv, input_mask=mask) == full
    mask[0, 0, 0] = False
    less = conv_energy(EYERISS, conv, input_mask=mask).computation
    assert full.computation - less == EYERISS.mac_energy


def test_joules_scale_everything() -> None:
    in_joules = SystolicHardware(joule_per_mac=1e-12)
    relative, absolute = (linear_energy(h, 100, 50) for h in (EYERISS, in_joules))
    assert absolute.total == pytest.approx(relative.total * 1e-12)
    assert (EYERISS.unit, in_joules.unit) == ("mac", "J")
    assert relative == LayerEnergy(207 * 5000, 200 * 150 + 6 * 4 * 100 + 5000, 3 * 5000)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ConvGeometry(3, 4, (5, 5), (7, 7)), "larger than the padded input"),
        (lambda: ConvGeometry(3, 4, (5, 5), (3, 3), groups=2), "groups do not divide"),
        (
            lambda: linear_energy(EYERISS, 3, 4, weight_mask=np.ones((3, 4), dtype=bool)),
            r"weight mask has shape \(3, 4\), the layer's is \(4, 3\)",
        ),
        (
            lambda: conv_energy(EYERISS, ConvGeometry(600, 8, (60, 60), (3, 3))),
            "do not fit into the input cache",
        ),
        (lambda: SystolicHardware(rows=0), "rows of 'eyeriss' is 0"),
        (lambda: SystolicHardware(cache_energy=float("nan")), "cache_energy"),
        (lambda: SystolicHardware(columns=1.5), "not a whole number"),  # type: ignore[arg-type]
        (lambda: SystolicHardware(word_bytes=4096 * 4), "less than one number"),
        (lambda: hardware_named("abacus"), "known: eyeriss, tpu"),
        (lambda: hardware_named("nowhere.toml"), "no file"),
    ],
)
def test_impossible_things_are_refused(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = 8\nrows = 9\n", "cannot be read as hardware"),
        ("lines = 8\n", "unknown key 'lines'"),
        ("rows = 'many'\n", "not a number"),
        ("rows = -1\n", "above 0"),
        ("rows\n", "cannot be read as hardware"),
    ],
)
def test_hardware_files_are_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        SystolicHardware.from_toml(path)


def test_a_hardware_file_overrides_eyeriss(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("rows = 16\njoule_per_mac = 2e-12\n")
    hardware = hardware_named(str(path))
    assert (hardware.name, hardware.rows, hardware.columns) == ("mine", 16, 14)
    assert hardware.unit == "J"
