from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from joulemap import InputError
from joulemap.datasets import NetworkSpec, Size, Width
from joulemap.profiler import networks
from joulemap.profiler.networks import NetworkDefinition, SpecBuilder
from joulemap.profiler.testing import NetworkContract, check_layers


class TestLeNet5(NetworkContract):
    name = "lenet5"
    resolution = 28

    def test_known_size(self) -> None:
        assert self.spec().at(self.spec().max_widths).params == 61_706


class TestLeNet5Caffe(NetworkContract):
    name = "lenet5_caffe"
    resolution = 32

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        assert full.params == 431_080
        assert full.macs == 2_293_000


class TestAlexNet(NetworkContract):
    name = "alexnet"
    resolution = (200, 256)

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        assert full.params == 61_100_840
        assert full.macs == 714_188_480

    def test_ecc_widths(self) -> None:
        assert self.spec().max_widths == (64, 192, 384, 256, 256, 4096, 4096)
        assert next(x for x in self.spec().layers if x.name == "fc6").in_channels == "36*conv5"


class TestMobileNetV1(NetworkContract):
    name = "mobilenet_v1"
    resolution = 160

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        assert full.params == 4_231_976 + 1025
        assert full.macs == 568_740_352 + 1024

    def test_ecc_widths(self) -> None:
        assert self.spec().max_widths == (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)


class TestErfNet(NetworkContract):
    name = "erfnet"
    resolution = (32, 64)
    num_samples = 2

    def spec(self) -> NetworkSpec:
        # The default is too large to run in tests.
        return networks.get("erfnet", (64, 128))

    def test_known_size(self) -> None:
        spec = networks.get("erfnet")
        assert spec.input_shape == (3, 512, 1024)
        full = spec.at(spec.max_widths)
        assert full.params == 2_064_256  # published as 2.06 million
        assert full["output"].out_size == (512, 1024)

    def test_ecc_widths(self) -> None:
        assert self.spec().max_widths == (*[64] * 15, *[128] * 24, *[64] * 6, *[16] * 6)

    def test_resolution_that_is_no_multiple_of_8(self) -> None:
        with pytest.raises(InputError, match="unequal maps"):
            networks.get("erfnet", (60, 128))


class TestMobileNetV2(NetworkContract):
    name = "mobilenet_v2"
    resolution = (96, 160)
    num_samples = 3

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        assert full.params == 3_504_872
        assert full.macs == 300_774_272

    def test_widths(self) -> None:
        widths = {width.name: width.max for width in self.spec().widths}
        assert len(widths) == 25
        streams = [widths[f"stage{stage}"] for stage in range(1, 8)]
        assert streams == [16, 24, 32, 64, 96, 160, 320]
        assert list(widths)[:4] == ["stem", "stage1", "block2_1_expand", "stage2"]
        assert (widths["block2_1_expand"], widths["block7_1_expand"]) == (96, 960)


class TestResNet18(NetworkContract):
    name = "resnet18"
    resolution = (64, 96)
    num_samples = 5

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        assert full.params == 11_689_512
        assert full.macs == 1_814_073_344

    def test_all_layers_of_a_residual_stream_share_its_width(self) -> None:
        adds = [layer for layer in self.spec().layers if layer.kind == "add"]
        assert [str(layer.out_channels) for layer in adds] == [
            f"stage{stage}" for stage in (1, 1, 2, 2, 3, 3, 4, 4)
        ]
        inner = [width.max for width in self.spec().widths if width.name.endswith("_inner")]
        assert inner == [64, 64, 128, 128, 256, 256, 512, 512]


class TestSqueezeNet(NetworkContract):
    name = "squeezenet"
    resolution = (66, 97)
    num_samples = 5

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        assert full.params == 1_248_424
        assert full["fire2.concat"].out_size == (54, 54)
        assert full["fire5.squeeze"].in_size == (27, 27)

    def test_sizes_of_concatenations(self) -> None:
        (layer,) = (x for x in self.spec().layers if x.name == "fire3.squeeze")
        assert layer.in_channels == "fire2_expand1+fire2_expand3"


class TestVgg16(NetworkContract):
    name = "vgg16"
    resolution = (32, 70)
    num_samples = 5

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        assert full.params == 138_357_544
        assert full.macs == 15_470_264_320

    def test_smallest_resolution(self) -> None:
        with pytest.raises(InputError, match="larger resolution"):
            networks.get("vgg16", 31)


class TestVit(NetworkContract):
    name = "vit"
    resolution = (32, 48)
    num_samples = 2

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        # ViT-Tiny/16 has 5,717,416 with its class token and the position of that.
        assert full.params == 5_717_416 - 2 * 192
        attention = 2 * 196 * 196 * 192
        linear = 196 * (4 * 192 * 192 + 2 * 192 * 768)
        assert full.macs == 196 * 768 * 192 + 12 * (attention + linear) + 192 * 1000

    def test_elements_of_attention(self) -> None:
        spec = self.spec()
        full = spec.at(spec.max_widths, batch=2)
        assert full["block1.scores"].output_elements == 2 * 3 * 196 * 196
        assert full["block1.values"].output_elements == 2 * 196 * 192

    def test_resolution_in_patches(self) -> None:
        with pytest.raises(InputError, match="multiples of 16"):
            networks.get("vit", 100)


class TestGru(NetworkContract):
    name = "gru"
    resolution = (7, 20)
    num_samples = 1

    def test_known_size(self) -> None:
        full = self.spec().at(self.spec().max_widths)
        recurrent = 3 * (10 * 256 + 256 * 256) + 3 * 2 * 256 * 256
        assert full.macs == 49 * recurrent + 256 * 12
        assert full.params == recurrent + 2 * 3 * 2 * 256 + 256 * 12 + 12


def test_every_registered_network_has_a_contract_class() -> None:
    tested = {cls.name for cls in NetworkContract.__subclasses__()}
    assert tested >= set(networks.names())


def test_every_registered_network_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "getting-started.md").read_text()
    for name in networks.names():
        assert f"| `{name}` | " in text
        assert f" | {len(networks.get(name).widths)} |" in text.split(f"| `{name}` |")[1][:100]


def test_names_are_sorted() -> None:
    assert list(networks.names()) == sorted(networks.names())
    assert "lenet5" in networks.names()


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"alexnet, erfnet.*module:function"):
        networks.get("resnet5000")


@pytest.mark.parametrize("side", range(2, 12))
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (2, 3, 1)])
def test_pools_with_a_partial_last_window(
    side: int, kernel: int, stride: int, padding: int
) -> None:
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)
    net = SpecBuilder("pools", (1, side, side), [])
    net.pool("pool", kernel, stride=stride, padding=padding, ceil_mode=True)
    assert net.size == tuple(pool(torch.zeros(1, 1, side, side)).shape[2:])


def test_vectors_that_cannot_be_arranged() -> None:
    net = SpecBuilder("maps", (1, 4, 4), [])
    net.activation("relu")
    with pytest.raises(InputError, match=r"writes 16 vectors.*arranged as 15"):
        net.arrange(positions=15)


@pytest.mark.parametrize("resolution", [0, -3, (1, 2, 3), 4, True])
def test_resolution_that_does_not_fit(resolution: int) -> None:
    with pytest.raises(InputError):
        networks.get("lenet5", resolution)


def test_build_refuses_a_spec_that_is_not_of_its_source() -> None:
    spec = dataclasses.replace(networks.get("lenet5"), source="zoo:alexnet")
    with pytest.raises(InputError, match="anew"):
        networks.build(spec, spec.max_widths)


def test_onnx_source_cannot_be_built() -> None:
    spec = dataclasses.replace(networks.get("lenet5"), source="onnx:" + "0" * 64)
    with pytest.raises(InputError, match="cannot be built in torch"):
        networks.build(spec, spec.max_widths)


# -- outside factories ------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        a, b = widths["a"], widths["b"]
        self.stem = nn.Conv2d(2, a, 3, padding=1)
        self.inner = nn.Conv2d(a, a, 3, padding=1)
        self.side = nn.Conv2d(a, b, (1, 3), padding=(0, 1), stride=2)
        self.halved = nn.Conv2d(a, 2 * b, 2, stride=2)
        self.up = nn.ConvTranspose2d(a + 3 * b, 5, 3, stride=2, padding=1, output_padding=1)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(5 * 32, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.inner(x)
        x = torch.cat([self.pool(x), self.side(x), self.halved(x)], 1)
        head: torch.Tensor = self.head(self.up(x).flatten(1))
        return head


def residual() -> NetworkDefinition:
    net = SpecBuilder("residual", (2, 4, 8), [Width("a", 9), Width("b", 6)])
    stem = net.conv("stem", "a", 3, padding=1)
    inner = net.conv("inner", "a", 3, padding=1)
    total = net.add("total", [stem, inner])
    pool = net.pool("pool", 2)
    side = net.conv("side", "b", (1, 3), padding=(0, 1), stride=2, inputs=total)
    half = net.conv("halved", "2*b", 2, stride=2, inputs=total)
    net.concat("joined", [pool, side, half])
    net.conv_transpose("up", 5, 3, stride=2, padding=1, output_padding=1)
    net.flatten()
    net.linear("head", 7)
    return NetworkDefinition(net.spec(), lambda _spec, widths: Residual(widths))


@pytest.fixture(autouse=True)
def module_of_a_user() -> Iterator[None]:
    module = types.ModuleType("their_networks")
    vars(module).update(residual=residual, wrong=lambda: 3, constant=5)
    sys.modules["their_networks"] = module
    yield
    del sys.modules["their_networks"]


class TestOutsideFactory(NetworkContract):
    name = "their_networks:residual"

    def test_source(self) -> None:
        assert self.spec().source == "factory:their_networks:residual"


def test_fixed_resolution() -> None:
    with pytest.raises(InputError, match="fixed resolution"):
        networks.get("their_networks:residual", 64)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module_at_all:f", "cannot be imported"),
        ("their_networks:missing", "no function 'missing'"),
        ("their_networks:constant", "no function 'constant'"),
        ("their_networks:wrong", "returned a int"),
        ("their_networks:", "write module:function"),
        (":f", "write module:function"),
    ],
)
def test_factory_that_cannot_be_used(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        networks.get(path)


def test_check_layers_sees_differences() -> None:
    spec = networks.get("their_networks:residual")
    for position, layer in enumerate(spec.layers):
        if layer.name == "head":
            shorter = dataclasses.replace(spec, layers=spec.layers[:position])
            with pytest.raises(AssertionError, match="no layer of the spec is named so"):
                check_layers(shorter, [4, 4], device="meta")
        if layer.name == "halved":
            wider = dataclasses.replace(layer, kernel_size=(3, 3))
            layers = (*spec.layers[:position], wider, *spec.layers[position + 1 :])
            with pytest.raises(AssertionError, match="in the spec"):
                check_layers(dataclasses.replace(spec, layers=layers), [4, 4], device="meta")


# -- the builder of specs ---------------------------------------------------------------------


def builder() -> SpecBuilder:
    return SpecBuilder("net", (3, 8, 8), [Width("a", 4)])


def test_builder_tracks_channels_and_size() -> None:
    net = builder()
    net.conv("conv", "a", 3, stride=2, padding=1)
    assert (net.channels, net.size) == (Size("a"), (4, 4))
    net.flatten()
    assert (net.channels, net.size) == (Size("16*a"), (1, 1))


def test_builder_for_sequences() -> None:
    net = SpecBuilder("sequence", (10, 6), [Width("a", 4)])
    net.linear("fc", "a")
    net.norm("norm")
    assert net.spec().at([3])["fc"].macs == 10 * 6 * 3
    assert net.spec().at([3])["norm"].output_elements == 30


def test_builder_explains_mistakes() -> None:
    with pytest.raises(InputError, match=r"call flatten\(\) first"):
        builder().linear("fc", 3)
    with pytest.raises(InputError, match="larger resolution"):
        builder().conv("conv", 3, 9)
    with pytest.raises(InputError, match="no earlier layer"):
        builder().activation("relu", inputs="conv")
    with pytest.raises(InputError, match="input_shape"):
        SpecBuilder("net", (1, 2, 3, 4), [])
    net = builder()
    net.activation("relu")
    with pytest.raises(InputError, match="two layers"):
        net.activation("relu")
    conv = net.conv("conv", 3, 3)
    with pytest.raises(InputError, match="unequal maps"):
        net.concat("joined", ["relu", conv])


def test_spec_of_the_builder_is_the_spec_by_hand() -> None:
    net = builder()
    net.depthwise("dw", 3, padding=1)
    assert isinstance(net.spec(), NetworkSpec)
    assert net.spec().layers[0].groups == 3
