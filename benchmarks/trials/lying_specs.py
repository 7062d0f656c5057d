"""Networks drawn at random with a spec that is true, and with one that is not.

A plan of layers is drawn; the spec is written of it, and so is the torch module. A lie changes one of
the two. What is true must pass; what is not must be refused in one short sentence.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from joulemap import InputError
from joulemap.datasets import NetworkSpec, Size, Width
from joulemap.profiler.networks import NetworkDefinition, SpecBuilder
from joulemap.profiler.networks.choice import chosen_network
from trials import Outcome, Trial

NUM_TRIES = 25
SIDE = 12


@dataclass(frozen=True)
class Step:
    """One layer of a plan.

    Attributes:
        name: Of the layer and of its module.
        kind: conv, depthwise, norm, relu, pool, add, concat or linear.
        reads: Names of the layers that it reads.
        out: Its width, where it has one.
        is_function: Whether the module has no part for it.
        calls: How often the module calls it.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    out: str = ""
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = True
    is_function: bool = False
    calls: int = 1


@dataclass(frozen=True)
class Plan:
    """A network: its width variables and its layers; `twins` share their weight."""

    widths: tuple[Width, ...]
    steps: tuple[Step, ...]
    twins: tuple[str, str] | None = None
    idle: int = 0


def draw_plan(draw: random.Random) -> Plan:
    """Return a network of convolutions, norms, pools, sums and concatenations."""
    widths = tuple(
        Width(f"w{number}", 4 * draw.randint(2, 8), 4, 4) for number in range(draw.randint(2, 4))
    )
    names = [width.name for width in widths]
    steps: list[Step] = []
    # What each layer writes: channels, and how often the map was halved.
    shapes: dict[str, tuple[Size, int]] = {"": (Size(3), 0)}
    last = ""

    def put(step: Step, channels: Size, halved: int) -> None:
        nonlocal last
        steps.append(step)
        shapes[step.name] = (channels, halved)
        last = step.name

    unused = names[:]
    draw.shuffle(unused)
    while unused or len(steps) < draw.randint(4, 14):
        number = len(steps)
        channels, halved = shapes[last]
        kind = draw.choice(("conv", "conv", "depthwise", "norm", "relu", "pool", "add", "concat"))
        if kind == "conv":
            out = unused.pop() if unused else draw.choice((*names, "2*" + names[0], "8"))
            stride = 2 if halved < 2 and draw.random() < 0.3 else 1
            # Widths are multiples of four, the images' channels are not.
            has_groups = channels.terms.get((), 0) % 4 == 0 and draw.random() < 0.2
            step = Step(
                *(f"conv{number}", kind, (last,), out),
                kernel=draw.choice((1, 3)),
                stride=stride,
                groups=4 if has_groups else 1,
                bias=draw.random() < 0.5,
            )
            put(step, Size(out), halved + stride - 1)
        elif kind == "depthwise" and last:
            put(Step(f"depthwise{number}", kind, (last,)), channels, halved)
        elif kind == "norm" and last:
            put(Step(f"norm{number}", kind, (last,)), channels, halved)
        elif kind == "relu":
            is_function = draw.random() < 0.3
            put(Step(f"relu{number}", kind, (last,), is_function=is_function), channels, halved)
        elif kind == "pool" and halved < 2 and last:
            put(Step(f"pool{number}", kind, (last,), kernel=2, stride=2), channels, halved + 1)
        elif kind in ("add", "concat") and last:
            fit = [
                name
                for name, (size, times) in shapes.items()
                if name not in ("", last)
                and times == halved
                and (size == channels or kind != "add")
            ]
            if fit:
                other = draw.choice(fit)
                total = channels if kind == "add" else channels + shapes[other][0]
                put(Step(f"{kind}{number}", kind, (last, other), is_function=True), total, halved)
    put(Step("end", "pool", (last,), kernel=0), shapes[last][0], 2)
    put(Step("head", "linear", ("end",), "10"), Size(10), 2)
    return Plan(widths, tuple(steps))


def spec_of(plan: Plan) -> NetworkSpec:
    """Return the spec of a plan."""
    net = SpecBuilder("drawn", (3, SIDE, SIDE), plan.widths)
    for step in plan.steps:
        read = step.reads[0]
        pad = step.kernel // 2
        if step.kind == "conv":
            net.conv(
                *(step.name, step.out, step.kernel),
                stride=step.stride,
                padding=pad,
                groups=step.groups,
                bias=step.bias,
                inputs=read,
            )
        elif step.kind == "depthwise":
            net.depthwise(
                step.name, step.kernel, stride=step.stride, padding=pad, bias=step.bias, inputs=read
            )
        elif step.kind == "norm":
            net.norm(step.name, inputs=read)
        elif step.kind == "relu":
            net.activation(step.name, inputs=read)
        elif step.kind == "pool" and step.kernel:
            net.pool(step.name, step.kernel, stride=step.stride, inputs=read)
        elif step.kind == "pool":
            net.pool(step.name, inputs=read)
        elif step.kind == "linear":
            net.flatten()
            net.linear(step.name, step.out, bias=step.bias)
        elif step.kind == "add":
            net.add(step.name, step.reads)
        else:
            net.concat(step.name, step.reads)
    return net.spec()


class Drawn(nn.Module):
    """The torch module of a plan."""

    def __init__(self, plan: Plan, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.plan = plan
        channels = {"": 3}
        for step in plan.steps:
            read = channels[step.reads[0]]
            out = int(Size(step.out).at(widths)) if step.out else read
            if step.kind == "concat":
                out = sum(channels[name] for name in step.reads)
            channels[step.name] = out
            if not step.is_function:
                self.add_module(step.name, _module(step, read, out))
        if plan.twins:
            first, second = (self.get_submodule(name) for name in plan.twins)
            second.weight = first.weight
        if plan.idle:
            self.idle = nn.Linear(plan.idle, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the classes."""
        made = {"": images}
        x = images
        for step in self.plan.steps:
            read = [made[name] for name in step.reads]
            if step.kind == "add":
                x = read[0] + read[1]
            elif step.kind == "concat":
                x = torch.cat(read, 1)
            elif step.is_function:
                x = F.relu(read[0])
            else:
                x = read[0].flatten(1) if step.kind == "linear" else read[0]
                for _ in range(step.calls):
                    x = self.get_submodule(step.name)(x)
            made[step.name] = x
        return x


def _module(step: Step, read: int, out: int) -> nn.Module:
    pad = step.kernel // 2
    if step.kind in ("conv", "depthwise"):
        groups = read if step.kind == "depthwise" else step.groups
        return nn.Conv2d(read, out, step.kernel, step.stride, pad, groups=groups, bias=step.bias)
    if step.kind == "norm":
        return nn.BatchNorm2d(read)
    if step.kind == "relu":
        return nn.ReLU()
    if step.kind == "pool":
        return nn.MaxPool2d(step.kernel, step.stride) if step.kernel else nn.AdaptiveAvgPool2d(1)
    return nn.Linear(read, out, bias=step.bias)


# -- lies: each returns the plan of the spec and that of the module, or None where it cannot be told ---

Lie = Callable[[random.Random, Plan], "tuple[Plan, Plan] | None"]


def _change(
    draw: random.Random, plan: Plan, kinds: tuple[str, ...], change: Callable[[Step], Step]
) -> tuple[Plan, Plan] | None:
    places = [n for n, s in enumerate(plan.steps) if s.kind in kinds and not s.is_function]
    if not places:
        return None
    place = draw.choice(places)
    steps = list(plan.steps)
    steps[place] = change(steps[place])
    return plan, replace(plan, steps=tuple(steps))


def _wider(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    return _change(draw, plan, ("conv",), lambda step: replace(step, out=f"{step.out}+4"))


def _stride(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    return _change(
        draw, plan, ("conv", "depthwise"), lambda step: replace(step, stride=3 - step.stride)
    )


def _kernel(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    return _change(
        draw, plan, ("conv", "depthwise"), lambda step: replace(step, kernel=4 - step.kernel)
    )


def _bias(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    kinds = ("conv", "depthwise", "linear")
    return _change(draw, plan, kinds, lambda step: replace(step, bias=not step.bias))


def _twice(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    kinds = ("depthwise", "norm", "relu")
    return _change(draw, plan, kinds, lambda step: replace(step, calls=2))


def _other_kind(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    return _change(draw, plan, ("norm",), lambda step: replace(step, kind="relu"))


def _left_out(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    """The module has a layer that the spec lacks; told the other way round in half of the cases."""
    places = [
        n for n, s in enumerate(plan.steps) if s.kind in ("norm", "relu", "depthwise") and s.reads
    ]
    places = [n for n in places if not plan.steps[n].is_function]
    if not places:
        return None
    gone = plan.steps[draw.choice(places)]
    steps = tuple(
        replace(
            step, reads=tuple(gone.reads[0] if name == gone.name else name for name in step.reads)
        )
        for step in plan.steps
        if step is not gone
    )
    shorter = replace(plan, steps=steps)
    return (shorter, plan) if draw.random() < 0.5 else (plan, shorter)


def _tied(_draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    norms = [step.name for step in plan.steps if step.kind == "norm"]
    of = {step.name: step for step in plan.steps}
    pairs = [
        (first, second)
        for first in norms
        for second in norms
        if first != second and of[second].reads == (first,)
    ]
    return (plan, replace(plan, twins=pairs[0])) if pairs else None


def _idle(draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    return plan, replace(plan, idle=draw.randint(1, 50))


def _unused(_draw: random.Random, plan: Plan) -> tuple[Plan, Plan] | None:
    more = replace(plan, widths=(*plan.widths, Width("unused", 7)))
    return more, more


LIES: tuple[Lie, ...] = (
    *(_wider, _stride, _kernel, _bias, _twice, _other_kind, _left_out, _tied, _idle, _unused),
)


def attempt(seed: int) -> Outcome:
    """Draw networks; look at each as it is and with one lie about it."""
    draw = random.Random(f"lying specs/{seed}")  # noqa: S311 - drawn again by the same seed
    failures: list[str] = []
    tries = 0
    for number in range(NUM_TRIES):
        plan = draw_plan(draw)
        where = f"seed {seed}, network {number}"
        tries += 1
        if (said := _look(plan, plan)) is not None:
            failures.append(f"{where}: true, but: {said}")
        lies = [(lie.__name__, told) for lie in LIES if (told := lie(draw, plan)) is not None]
        for name, (spec, built) in draw.sample(lies, min(3, len(lies))):
            tries += 1
            said = _look(spec, built)
            if said is None:
                failures.append(f"{where}: {name[1:]} passed")
            elif len(said) >= 400:
                failures.append(f"{where}: {name[1:]}: {len(said)} characters")
    return Outcome(tries, tuple(failures))


def _look(told: Plan, built: Plan) -> str | None:
    """Return why a spec is refused, None if it is not."""

    def factory() -> NetworkDefinition:
        return NetworkDefinition(spec_of(told), lambda _, widths: Drawn(built, widths))

    try:
        chosen_network(factory, is_run=True)
    except InputError as error:
        return str(error)
    return None


TRIALS = (
    Trial(
        "lying-specs",
        "a true spec passes, one that is not its network is refused",
        rounds=40,
        run=attempt,
        limit_s=600,
    ),
)
