"""What several test files share: small networks, made-up visits, one thread, no silent skips."""

from __future__ import annotations

import os
import random
import tomllib
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from joulemap.datasets import (
    Block,
    Conditions,
    LayerSpec,
    NetworkSpec,
    Timing,
    Visit,
    Width,
)
from joulemap.datasets.journal import CampaignRecord
from joulemap.device_agents.onboard.keeper import device_lock

from . import waiting

waiting.install()

# The shipped test classes explain a failed assert as test files do.
for folder in ("datasets", "device_agents", "models", "profiler"):
    pytest.register_assert_rewrite(f"joulemap.{folder}.testing")

# Shared machines pause: neither slow examples nor slow generation say anything about the code. A
# run fails for what was changed, not for what was drawn; `--hypothesis-profile search` draws anew.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", parent=settings.get_profile("search"), max_examples=500)
settings.register_profile("same", parent=settings.get_profile("search"), derandomize=True)
settings.load_profile("same")

# Linear algebra on small matrices: threads that wait for each other on busy cores take forty times
# as long. Programs that tests start inherit it.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
threadpool_limits(limits=1)

# Test processes that run at the same time, and real campaigns beside them, are devices of their own.
os.environ[device_lock.VARIABLE] = f"tests-{os.getpid()}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draw as many examples of each property as a soak asks for, also where a test draws fewer."""
    if config.getoption("--hypothesis-profile") != "soak":
        return
    most = settings.get_profile("soak").max_examples
    for item in items:
        test = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        own = getattr(test, "_hypothesis_internal_use_settings", None)
        if own is not None and own.max_examples < most:
            vars(test)["_hypothesis_internal_use_settings"] = settings(own, max_examples=most)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let no wait for a program outlast the test."""
    waiting.set_limit(item)


AnyReport = TypeVar("AnyReport", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skipped test that absent_hardware.toml does not list."""
    return _without_silent_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Likewise of a file that skips itself as a whole."""
    return _without_silent_skips((yield))


def _without_silent_skips(report: AnyReport) -> AnyReport:
    is_expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not is_expected_failure and not _may_be_skipped(report.nodeid):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = (
            f"{why}. A skipped test is a feature that nobody tested: only tests whose hardware is "
            "absent may be skipped, and tests/absent_hardware.toml does not list this one"
        )
    return report


def _may_be_skipped(test: str) -> bool:
    return any(test == item or test.startswith((f"{item}::", f"{item}[")) for item in _listed())


@cache
def _listed() -> frozenset[str]:
    text = Path(__file__).with_name("absent_hardware.toml").read_text(encoding="utf-8")
    return frozenset(tomllib.loads(text)["tests"])


CONDITIONS = Conditions(
    batch=1, resolution="8x8", precision="fp32", runtime="onnxruntime", threads=1
)


@pytest.fixture
def tiny_spec() -> NetworkSpec:
    """Two convolutions and a linear layer; widths a (1..8) and b (1..16)."""
    return NetworkSpec(
        name="tiny",
        source="zoo:tiny",
        input_shape=(3, 8, 8),
        widths=(Width("a", 8), Width("b", 16)),
        layers=(
            LayerSpec("conv1", "conv", 3, "a", kernel_size=3, padding=1, in_size=8, out_size=8),
            LayerSpec("relu1", "activation", "a", "a", in_size=8, out_size=8),
            LayerSpec("conv2", "conv", "a", "b", kernel_size=3, padding=1, in_size=8, out_size=8),
            LayerSpec("fc", "linear", "64*b", 10),
        ),
    )


def make_block(latency_s: float, rng: random.Random, runs: int = 5) -> Block:
    latencies = tuple(latency_s * rng.uniform(0.98, 1.02) for _ in range(runs))
    return Block(latencies, 1, sum(latencies), sum(latencies) * 0.99, 0.0)


def make_timing(latency_s: float, rng: random.Random) -> Timing:
    return Timing(
        warm_up_s=(latency_s * 1.5, latency_s, latency_s),
        is_settled=True,
        blocks=tuple(make_block(latency_s, rng) for _ in range(3)),
        reference_before=make_block(0.001, rng),
        reference_after=make_block(0.001, rng),
        measuring_s=latency_s * 18,
        materialise_s=0.002,
        load_s=0.01,
        model_bytes=1000,
        machine={"load_1min": 0.5, "temperature_c": None},
        pid=1234,
    )


def true_latency_s(widths: tuple[int, ...]) -> float:
    a, b = widths
    return 1e-4 + 2e-5 * a + 1e-5 * a * b


@pytest.fixture
def make_visits() -> Callable[..., list[Visit]]:
    """Returns a function (spec, variants, visits, seed, noise) -> visits with made-up times."""

    def make(
        spec: NetworkSpec, variants: int = 12, visits: int = 3, seed: int = 0, noise: float = 0.03
    ) -> list[Visit]:
        rng = random.Random(seed)
        vectors = rng.sample([(a, b) for a in range(1, 9) for b in range(1, 17)], variants)
        return [
            Visit(
                spec_id=spec.fingerprint,
                widths=vector,
                conditions=CONDITIONS,
                visit_index=index,
                attempt=0,
                sequence=index * variants + number,
                started_at="2026-11-22T00:00:00.000+00:00",
                timing=make_timing(true_latency_s(vector) * rng.gauss(1.0, noise), rng),
            )
            for index in range(visits)
            for number, vector in enumerate(vectors)
        ]

    return make


@pytest.fixture
def campaign(tiny_spec: NetworkSpec) -> CampaignRecord:
    return CampaignRecord(
        spec=tiny_spec,
        conditions=CONDITIONS,
        device={"device_id": "abc", "cpu_model": "Test CPU", "runtimes": {"onnxruntime": "1.31"}},
        runtime_version="1.31",
        protocol={"visits": 3},
        sampling="sobol",
        seed=0,
        reference_widths=(2, 4),
        joulemap_version="0.1.0",
    )
