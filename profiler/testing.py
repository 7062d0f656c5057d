"""Contract tests that a new network's test class inherits, and the check that they rest on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from joulemap import JoulemapError

from ..datasets import NetworkSpec
from . import networks
from .campaign.sampling import sample, sampler_named
from .networks.definition import Resolution
from .networks.module_check import difference, run_at


def check_layers(
    spec: NetworkSpec, widths: Sequence[int] | Mapping[str, int], *, batch: int = 1, device: str
) -> None:
    """Compare every layer of the spec with what torch computes in a forward pass.

    Shapes, multiply-accumulates and parameters are read off the running modules, independently of
    the spec's formulas.

    Args:
        spec: A network that `networks.build` can build.
        widths: Its widths in channels.
        batch: Samples per call.
        device: Where torch runs it; `meta` checks shapes without computing.

    Raises:
        AssertionError: They differ, or one of the two has a layer that the other lacks.
    """
    found = difference(spec, widths, run_at(spec, widths, device, batch), batch)
    if found is not None:
        raise AssertionError(f"{spec.name} at {widths}: {found}")


class NetworkContract:
    """What every network keeps: a test class per network inherits it and sets `name`.

    Attributes:
        name: What `networks.get` takes.
        resolution: Another resolution at which the network must work too; None for none.
        num_samples: Random width vectors on which spec and module are compared.
    """

    name: ClassVar[str]
    resolution: ClassVar[Resolution | None] = None
    num_samples: ClassVar[int] = 50

    def spec(self) -> NetworkSpec:
        """Return the network as data."""
        return networks.get(self.name)

    def random_widths(self, count: int) -> list[tuple[int, ...]]:
        """Return `count` uniform width vectors in channels, the same ones every time."""
        return uniform_widths(self.spec(), count)

    def test_layers_equal_forward_hooks(self) -> None:
        """Spec and module agree at random width vectors and at both extremes."""
        spec = self.spec()
        vectors = [spec.min_widths, spec.max_widths, *self.random_widths(self.num_samples)]
        for number, widths in enumerate(vectors):
            check_layers(spec, widths, batch=1 + number % 2, device="meta")

    def test_layers_equal_forward_hooks_with_real_tensors(self) -> None:
        """Spec and module agree when torch really computes."""
        spec = self.spec()
        for batch, widths in enumerate([spec.min_widths, *self.random_widths(1)], 1):
            check_layers(spec, widths, batch=batch, device="cpu")

    def test_another_resolution(self) -> None:
        """Spec and module agree at another input size, if the network has one."""
        if self.resolution is not None:
            spec = networks.get(self.name, self.resolution)
            if spec.input_shape == self.spec().input_shape:
                raise AssertionError(f"{self.name} ignores the resolution {self.resolution}")
            for widths in (spec.max_widths, *self.random_widths(2)):
                check_layers(spec, widths, device="meta")

    def test_source_leads_back_to_the_network(self) -> None:
        """A spec read back from JSON is equal and builds the same module."""
        spec = NetworkSpec.from_json(self.spec().to_json())
        _equal(f"{self.name}: spec after JSON", self.spec(), spec)
        module = networks.build(spec, spec.min_widths)
        if any(child.training for child in module.modules()):
            raise AssertionError(f"{self.name} is not in eval mode")

    def test_norms_look_trained(self) -> None:
        """No running statistic is what a fresh norm has, so exporters keep every folded bias."""
        module = networks.build(self.spec(), self.random_widths(1)[0])
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean") and not buffer.abs().min() > 0:
                raise AssertionError(f"{name} of {self.name} holds zeros")
            if name.endswith("running_var") and not 0.25 < buffer.min() <= buffer.max() < 4:
                raise AssertionError(f"{name} of {self.name} is out of range")

    def test_widths_are_checked(self) -> None:
        """Widths out of bounds are refused."""
        spec = self.spec()
        try:
            networks.build(spec, [most + 1 for most in spec.max_widths])
        except JoulemapError:
            return
        raise AssertionError(f"{self.name} can be built beyond its bounds")


class SamplerContract:
    """What every sampler keeps: a test class per sampler inherits it and sets `name`.

    Attributes:
        name: What `sample(sampling=...)` takes.
        network: The network that is sampled, as `networks.get` takes it.
        count: How many width vectors are drawn.
    """

    name: ClassVar[str]
    network: ClassVar[str] = "mobilenet_v1"
    count: ClassVar[int] = 100

    def test_vectors_are_distinct_and_within_bounds(self) -> None:
        """Every vector is one of the network, and none comes twice."""
        spec = networks.get(self.network)
        vectors = sample(spec, self.count, sampling=self.name)
        if len(set(vectors)) != self.count:
            raise AssertionError(f"{self.name} gives {len(set(vectors))} different vectors")
        for vector in vectors:
            _equal(f"{self.name}: a vector", vector, spec.check_widths(vector))

    def test_a_seed_gives_the_same_vectors_again(self) -> None:
        """A campaign continues with the vectors that it began with."""
        spec = networks.get(self.network)
        first, again = (sample(spec, self.count, sampling=self.name, seed=3) for _ in range(2))
        if first != again:
            raise AssertionError(f"{self.name} gives other vectors for the same seed")

    def test_a_longer_sample_begins_with_the_shorter_one(self) -> None:
        """A sampler that says so is prefix-stable."""
        if not sampler_named(self.name).is_prefix_stable:
            return
        spec = networks.get(self.network)
        longest = sample(spec, self.count, sampling=self.name, seed=1)
        for count in (1, 2, self.count // 2, self.count - 1):
            if sample(spec, count, sampling=self.name, seed=1) != longest[:count]:
                raise AssertionError(f"{self.name}: {count} vectors do not begin {self.count}")


def uniform_widths(spec: NetworkSpec, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Return `count` uniform width vectors of the network in channels, reproducible."""
    draw = random.Random(seed)  # noqa: S311 - reproducible, not secret
    return [
        tuple(draw.randrange(width.min, width.max + 1, width.multiple) for width in spec.widths)
        for _ in range(count)
    ]


def _equal(what: str, expected: object, found: object) -> None:
    if expected != found:
        raise AssertionError(f"{what}: the spec says {expected}, torch {found}")
