"""Rules: for each ONNX operator, which axes of its inputs agree, and what axes its outputs have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from . import axes as algebra
from .axes import Axis
from .step import SIDES, Axes, NotUnderstood, Rule, Step

RULES: dict[str, Rule] = {}

# Written as they are in the order of ONNX's operator list.
UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseNot",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "CumSum",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "IsInf",
    "IsNaN",
    "LRN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
]
BROADCAST = [
    "Add",
    "And",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
]
POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
REDUCTIONS = [
    "ArgMax",
    "ArgMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the rule of operators."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = function
        return function

    return register


def broadcast(step: Step, inputs: Sequence[Axes], shape: Sequence[int]) -> Axes:
    """Return the axes of a broadcast, those of equal size made the same."""
    found: list[Axis] = []
    for place in range(1, len(shape) + 1):
        size = shape[-place]
        same = [
            axes[-place]
            for axes in inputs
            if len(axes) >= place and algebra.size_of(axes[-place]) == size
        ]
        if not same:
            raise NotUnderstood("its output is larger than what it reads")
        if size != 1:
            for other in same[1:]:
                step.agree(same[0], other)
        found.insert(0, same[0])
    return tuple(found)


def _given(step: Step) -> list[Axes]:
    return [axes for axes in step.inputs if axes is not None]


def _with(axes: Axes, place: int, axis: Axis) -> Axes:
    return (*axes[:place], axis, *axes[place + 1 :])


def _others(step: Step, first: Axes) -> list[Axes]:
    """Return the outputs' axes where all but the first are small and fixed."""
    return [first, *(step.constants(shape) for shape in step.shapes[1:])]


# -- values, one by one ----------------------------------------------------------------------------


@rule(*UNARY)
def _unary(step: Step) -> list[Axes]:
    return _others(step, step.axes(0))


@rule(*BROADCAST)
def _broadcast(step: Step) -> list[Axes]:
    return [broadcast(step, _given(step), step.shapes[0])]


@rule("QuantizeLinear", "DequantizeLinear")
def _quantize(step: Step) -> list[Axes]:
    axes = step.axes(0)
    place = step.attribute("axis", 1)
    for slot in (1, 2):
        if step.has(slot) and len(step.axes(slot)) == 1 and len(axes) > 1:
            step.agree(axes[place], step.axes(slot)[0])
    return [axes]


@rule("BatchNormalization", "InstanceNormalization")
def _batch_norm(step: Step) -> list[Axes]:
    axes = step.axes(0)
    for parameter in _given(step)[1:]:
        step.agree(axes[1], parameter[0])
    return _others(step, axes)


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(step: Step) -> list[Axes]:
    axes = step.axes(0)
    for parameter in _given(step)[1:]:
        for place in range(1, len(parameter) + 1):
            if algebra.size_of(parameter[-place]) != 1:
                step.agree(axes[-place], parameter[-place])
    return _others(step, axes)


@rule("GroupNormalization")
def _group_norm(step: Step) -> list[Axes]:
    axes = step.axes(0)
    channels = algebra.size_of(axes[1])
    groups = step.attribute("num_groups")
    part = algebra.free(channels // groups)
    step.agree(axes[1], algebra.multiply(algebra.constant(groups), part))
    for parameter in _given(step)[1:]:
        if algebra.size_of(parameter[0]) == channels:
            step.agree(axes[1], parameter[0])
        else:  # one value a group, as opset 18 has it
            step.freeze([parameter[0]], "the number of groups is fixed")
    return [axes]


# -- products --------------------------------------------------------------------------------------


@rule("Conv")
def _conv(step: Step) -> list[Axes]:
    data, weight = step.axes(0), step.axes(1)
    groups = step.attribute("group", 1)
    inputs, outputs = algebra.size_of(data[1]), algebra.size_of(weight[0])
    step.freeze([*weight[2:], *data[2:]], SIDES)
    if groups == 1:
        step.agree(data[1], weight[1])
    elif groups == inputs:  # depthwise, with a multiplier
        if algebra.size_of(weight[1]) != 1:
            raise NotUnderstood("its weights do not fit its groups")
        multiplier = algebra.constant(outputs // groups)
        step.agree(weight[0], algebra.multiply(data[1], multiplier))
        step.rewrite_attribute("group", [data[1]])
    else:
        many = algebra.constant(groups)
        step.agree(data[1], algebra.multiply(many, weight[1]))
        step.agree(weight[0], algebra.multiply(many, algebra.free(outputs // groups)))
    if step.has(2):
        step.agree(weight[0], step.axes(2)[0])
    return [(data[0], weight[0], *step.constants(step.shapes[0][2:]))]


@rule("ConvTranspose")
def _conv_transpose(step: Step) -> list[Axes]:
    data, weight = step.axes(0), step.axes(1)
    groups = step.attribute("group", 1)
    step.freeze([*weight[2:], *data[2:]], SIDES)
    step.agree(data[1], weight[0])
    if groups == 1:
        output = weight[1]
    elif groups == algebra.size_of(data[1]):
        step.freeze([weight[1]], "the multiplier of a depthwise convolution stays")
        output = algebra.multiply(data[1], weight[1])
        step.rewrite_attribute("group", [data[1]])
    else:
        many = algebra.constant(groups)
        part = algebra.free(algebra.size_of(data[1]) // groups)
        step.agree(data[1], algebra.multiply(many, part))
        output = algebra.multiply(many, weight[1])
    if step.has(2):
        step.agree(output, step.axes(2)[0])
    if step.attribute("output_shape") is not None:
        step.freeze([output], "its output shape is written out")
    return [(data[0], output, *step.constants(step.shapes[0][2:]))]


@rule("Gemm")
def _gemm(step: Step) -> list[Axes]:
    left, right = step.axes(0), step.axes(1)
    left = left[::-1] if step.attribute("transA", 0) else left
    right = right[::-1] if step.attribute("transB", 0) else right
    step.agree(left[1], right[0])
    found: Axes = (left[0], right[1])
    if step.has(2):
        found = broadcast(step, [found, step.axes(2)], step.shapes[0])
    return [found]


@rule("MatMul")
def _matmul(step: Step) -> list[Axes]:
    left, right = step.axes(0), step.axes(1)
    if len(left) == 1 and len(right) == 1:
        step.agree(left[0], right[0])
        return [()]
    if len(left) == 1:
        step.agree(left[0], right[-2])
        return [(*right[:-2], right[-1])]
    if len(right) == 1:
        step.agree(left[-1], right[0])
        return [left[:-1]]
    step.agree(left[-1], right[-2])
    heads = broadcast(step, [left[:-2], right[:-2]], step.shapes[0][:-2])
    for axis in heads if len(left) > 2 and len(right) > 2 else ():
        for extent in algebra.extents_of(axis):
            extent.is_repeated = True
    return [(*heads, left[-2], right[-1])]


@rule("Einsum")
def _einsum(step: Step) -> list[Axes]:
    equation = str(step.attribute("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow or "." in equation:
        raise NotUnderstood(f"the equation '{equation[:40]}' leaves out what it writes")
    letters: dict[str, Axis] = {}
    terms = left.split(",")
    for term, axes in zip(terms, _given(step), strict=True):
        for letter, axis in zip(term, axes, strict=True):
            if letter in letters and algebra.size_of(letters[letter]) == 1:
                letters[letter] = axis
            elif letter in letters and algebra.size_of(axis) != 1:
                step.agree(letters[letter], axis)
            else:
                letters.setdefault(letter, axis)
    for letter in right:
        if len(terms) > 1 and all(letter in term for term in terms):
            for extent in algebra.extents_of(letters[letter]):
                extent.is_repeated = True
    return [tuple(letters[letter] for letter in right)]


def _recurrent(step: Step, gates: int) -> list[Axes]:
    data, weight, recurrence = step.axes(0), step.axes(1), step.axes(2)
    hidden = algebra.free(step.attribute("hidden_size"))
    stacked = algebra.multiply(algebra.constant(gates), hidden)
    for slot in (1, 2, 3, 5, 6, 7):
        if step.has(slot):
            step.freeze([step.axes(slot)[0]], "the number of directions stays")
    step.agree(data[2], weight[2])
    step.agree(weight[1], stacked)
    step.agree(recurrence[1], stacked)
    step.agree(recurrence[2], hidden)
    if step.has(3):
        step.agree(step.axes(3)[1], algebra.multiply(algebra.constant(2 * gates), hidden))
    for slot in (5, 6):
        if step.has(slot):
            step.freeze([step.axes(slot)[1]], "the batch stays")
            step.agree(step.axes(slot)[2], hidden)
    if step.has(7):
        step.agree(step.axes(7)[1], algebra.multiply(algebra.constant(3), hidden))
    step.rewrite_attribute("hidden_size", [hidden])
    if step.attribute("layout", 0):
        raise NotUnderstood("the batch stands first")
    directions = algebra.constant(algebra.size_of(weight[0]))
    state: Axes = (directions, data[1], hidden)
    return [(data[0], *state[:1], *state[1:]), state, state][: len(step.shapes)]


@rule("LSTM")
def _lstm(step: Step) -> list[Axes]:
    return _recurrent(step, 4)


@rule("GRU")
def _gru(step: Step) -> list[Axes]:
    return _recurrent(step, 3)


@rule("RNN")
def _rnn(step: Step) -> list[Axes]:
    return _recurrent(step, 1)


# -- what makes maps smaller or larger -------------------------------------------------------------


@rule(*POOLS)
def _pool(step: Step) -> list[Axes]:
    axes = step.axes(0)
    step.freeze(axes[2:], SIDES)
    return _others(step, (*axes[:2], *step.constants(step.shapes[0][2:])))


@rule(*REDUCTIONS)
def _reduce(step: Step) -> list[Axes]:
    axes = step.axes(0)
    places = step.attribute("axes")
    if step.node.op_type.startswith("Arg"):
        places = [step.attribute("axis", 0)]
    elif places is None and step.has(1):
        places = step.ints(1)
    if not places:
        if step.attribute("noop_with_empty_axes", 0):
            return [axes]
        places = range(len(axes))
    reduced = {place % len(axes) for place in places}
    if step.node.op_type.startswith("Arg"):
        step.freeze([axes[place] for place in reduced], "it says where, not how much")
    if step.attribute("keepdims", 1):
        return [
            tuple(
                algebra.constant(1) if place in reduced else axis for place, axis in enumerate(axes)
            )
        ]
    return [tuple(axis for place, axis in enumerate(axes) if place not in reduced)]


@rule("Resize", "Upsample")
def _resize(step: Step) -> list[Axes]:
    axes = step.axes(0)
    for slot in range(1, len(step.inputs)):
        if step.has(slot):
            step.freeze(step.axes(slot), "there is one number for each axis")
    found = _same_or_fixed(step, axes, step.shapes[0], "it is resized")
    if step.node.op_type == "Resize" and step.has(3) and step.node.input[3]:
        step.rewrite_input(3, found)
    return [found]


def _same_or_fixed(step: Step, axes: Axes, shape: Sequence[int], reason: str) -> Axes:
    """Return the output's axes: those of the input where the size is the same, fixed elsewhere."""
    found = list(step.constants(shape))
    for place in range(1, min(len(axes), len(shape)) + 1):
        if algebra.size_of(axes[-place]) == shape[-place]:
            found[-place] = axes[-place]
        elif algebra.size_of(axes[-place]) != 1:
            step.freeze([axes[-place]], reason)
    return tuple(found)


@rule("GridSample")
def _grid_sample(step: Step) -> list[Axes]:
    axes = step.axes(0)
    step.freeze([*axes[2:], *step.axes(1)], SIDES)
    return [(*axes[:2], *step.constants(step.shapes[0][2:]))]


@rule("Pad")
def _pad(step: Step) -> list[Axes]:
    axes = step.axes(0)
    pads = step.attribute("pads") or step.ints(1) or []
    places = step.ints(3) if step.has(3) else None
    order = [place % len(axes) for place in places] if places else list(range(len(axes)))
    found = list(axes)
    for number, place in enumerate(order):
        before, after = int(pads[number]), int(pads[number + len(order)])
        if before == after == 0:
            continue
        if before < 0 or after < 0 or step.attribute("mode", "constant") != "constant":
            step.freeze([axes[place]], "it is cut or mirrored")
            found[place] = algebra.constant(step.shapes[0][place])
        else:
            ends = (algebra.constant(before), algebra.constant(after))
            found[place] = algebra.join([ends[0], axes[place], ends[1]])
    return [tuple(found)]


@rule("DepthToSpace")
def _depth_to_space(step: Step) -> list[Axes]:
    axes = step.axes(0)
    taps = algebra.constant(step.attribute("blocksize") ** 2)
    part = algebra.free(algebra.size_of(axes[1]) // algebra.size_of(taps))
    step.freeze(axes[2:], SIDES)
    is_outer = step.attribute("mode", "DCR") == "DCR"
    order = (taps, part) if is_outer else (part, taps)
    step.agree(axes[1], algebra.multiply(*order))
    return [(axes[0], part, *step.constants(step.shapes[0][2:]))]


@rule("SpaceToDepth")
def _space_to_depth(step: Step) -> list[Axes]:
    axes = step.axes(0)
    step.freeze(axes[2:], SIDES)
    taps = algebra.constant(step.attribute("blocksize") ** 2)
    return [(axes[0], algebra.multiply(taps, axes[1]), *step.constants(step.shapes[0][2:]))]


# -- what only moves values ------------------------------------------------------------------------


@rule("Concat")
def _concat(step: Step) -> list[Axes]:
    inputs = _given(step)
    place = step.attribute("axis") % len(step.shapes[0])
    for axes in inputs[1:]:
        for other in range(len(axes)):
            if other != place:
                step.agree(inputs[0][other], axes[other])
    return [_with(inputs[0], place, algebra.join([axes[place] for axes in inputs]))]


@rule("Split")
def _split(step: Step) -> list[Axes]:
    axes = step.axes(0)
    place = step.attribute("axis", 0) % len(axes)
    rest = axes[place]
    parts = []
    for shape in step.shapes:
        part, rest = algebra.cut(rest, shape[place])
        parts.append(part)
    if len({shape[place] for shape in step.shapes}) == 1:
        # Code that makes equal pieces (`chunk`) makes equal ones of every size.
        for part in parts[1:]:
            step.agree(parts[0], part)
    if not all(map(algebra.is_constant, parts)):
        if step.attribute("split") is not None:
            step.rewrite_attribute("split", parts)
        else:
            step.rewrite_input(1, parts)
    return [_with(axes, place, part) for part in parts]


@rule("Slice")
def _slice(step: Step) -> list[Axes]:
    axes = list(step.axes(0))
    is_old = step.attribute("starts") is not None
    starts: list[int] = step.attribute("starts") if is_old else step.needed_ints(1)
    ends: list[int] = step.attribute("ends") if is_old else step.needed_ints(2)
    places = step.attribute("axes") if is_old else step.ints(3)
    steps = None if is_old else step.ints(4)
    places = list(places) if places is not None else list(range(len(starts)))
    is_rewritten = False
    first: list[Axis] = []
    last: list[Axis] = []
    for number, start in enumerate(starts):
        place = places[number] % len(axes)
        axis = axes[place]
        size, left = algebra.size_of(axis), step.shapes[0][place]
        stride = steps[number] if steps else 1
        first.append(algebra.constant(start))
        last.append(algebra.constant(ends[number]))
        if left == size and stride == 1:
            if ends[number] == size and not algebra.is_constant(axis):
                last[-1] = algebra.constant((1 << 31) - 1)
                is_rewritten = True
            continue
        if algebra.is_constant(axis):
            axes[place] = algebra.constant(left)
            continue
        if stride != 1:
            step.freeze([axis], "only each so many of it is taken")
            axes[place] = algebra.constant(left)
            continue
        begin = max(0, min(start + size if start < 0 else start, size))
        before, rest = algebra.cut(axis, begin)
        axes[place], _ = algebra.cut(rest, left)
        first[-1] = before
        last[-1] = algebra.join([before, axes[place]])
        is_rewritten = True
    if is_rewritten or any(map(step.is_computed, (1, 2)) if not is_old else ()):
        if is_old:
            step.rewrite_attribute("starts", first)
            step.rewrite_attribute("ends", last)
        else:
            step.rewrite_input(1, first)
            step.rewrite_input(2, last)
    return [tuple(axes)]


@rule("Transpose")
def _transpose(step: Step) -> list[Axes]:
    axes = step.axes(0)
    order = step.attribute("perm") or list(range(len(axes)))[::-1]
    return [tuple(axes[place] for place in order)]


@rule("Squeeze")
def _squeeze(step: Step) -> list[Axes]:
    axes = step.axes(0)
    places = step.attribute("axes") or (step.ints(1) if step.has(1) else None)
    if places is None:
        places = [place for place, axis in enumerate(axes) if algebra.size_of(axis) == 1]
    gone = {place % len(axes) for place in places}
    return [tuple(axis for place, axis in enumerate(axes) if place not in gone)]


@rule("Unsqueeze")
def _unsqueeze(step: Step) -> list[Axes]:
    axes = iter(step.axes(0))
    rank = len(step.shapes[0])
    places = step.attribute("axes") or step.ints(1) or []
    new = {place % rank for place in places}
    return [tuple(algebra.constant(1) if place in new else next(axes) for place in range(rank))]


@rule("Reshape", "Flatten")
def _reshape(step: Step) -> list[Axes]:
    found = regroup(step.axes(0), step.shapes[0])
    if step.node.op_type == "Reshape":
        step.rewrite_input(1, found)
    return [found]


def regroup(axes: Axes, shape: Sequence[int]) -> Axes:
    """Return the axes of a reshaped tensor.

    Args:
        axes: Of the tensor before.
        shape: Of the tensor after, as found.
    """
    found: list[Axis] = [algebra.constant(size) for size in shape]
    if 0 in shape:
        algebra.freeze(axes, "Reshape: it is empty")
        return tuple(found)
    before = [axis for axis in axes if algebra.size_of(axis) != 1]
    after = [place for place, size in enumerate(shape) if size != 1]
    while before or after:
        group, places = [before.pop(0)], [after.pop(0)]
        have, want = algebra.size_of(group[0]), shape[places[0]]
        while have != want:
            if have < want:
                group.append(before.pop(0))
                have *= algebra.size_of(group[-1])
            else:
                places.append(after.pop(0))
                want *= shape[places[-1]]
        if all(map(algebra.is_constant, group)):
            continue
        flat = group[0]
        for axis in group[1:]:
            flat = algebra.multiply(flat, axis)
        for place in places[:-1]:
            found[place], flat = algebra.peel(flat, shape[place])
        found[places[-1]] = flat
    return tuple(found)


@rule("Expand")
def _expand(step: Step) -> list[Axes]:
    found = list(_same_or_fixed(step, step.axes(0), step.shapes[0], "it is expanded"))
    numbers = step.numbers.get(step.node.input[1])
    if numbers is not None:
        for place, number in enumerate(numbers, start=len(found) - len(numbers)):
            if (
                algebra.is_constant(found[place])
                and algebra.size_of(number) == step.shapes[0][place]
            ):
                found[place] = _filled(step, number)
    step.rewrite_input(1, found)
    return [tuple(found)]


def _filled(step: Step, number: Axis) -> Axis:
    """Return an axis that one value fills: of any size, where it is a constant that is repeated.

    Initial states of recurrent layers are such: zeros, in the size that the hidden state has.
    """
    name = step.node.input[0]
    is_fill = name in step.tensors.constants and step.tensors.values[name].size == 1
    if is_fill and algebra.is_constant(number) and step.tensors.dtypes[name].kind == "f":
        return algebra.free(algebra.size_of(number))
    return number


@rule("Tile")
def _tile(step: Step) -> list[Axes]:
    repeats = step.needed_ints(1)
    if step.is_computed(1):
        raise NotUnderstood("how often it repeats depends on a width")
    return [
        tuple(
            algebra.multiply(algebra.constant(count), axis)
            for count, axis in zip(repeats, step.axes(0), strict=True)
        )
    ]


@rule("Gather")
def _gather(step: Step) -> list[Axes]:
    data, indices = step.axes(0), step.axes(1)
    place = step.attribute("axis", 0) % len(data)
    step.freeze([data[place]], "single places of it are picked")
    return [(*data[:place], *indices, *data[place + 1 :])]


@rule("GatherElements")
def _gather_elements(step: Step) -> list[Axes]:
    data, indices = step.axes(0), step.axes(1)
    place = step.attribute("axis", 0) % len(data)
    step.freeze([data[place], indices[place]], "single places of it are picked")
    for other in range(len(data)):
        if other != place:
            step.agree(data[other], indices[other])
    return [indices]


@rule("GatherND")
def _gather_nd(step: Step) -> list[Axes]:
    data, indices = step.axes(0), step.axes(1)
    begin = step.attribute("batch_dims", 0)
    end = begin + step.tensors.shapes[step.node.input[1]][-1]
    step.freeze(data[begin:end], "single places of it are picked")
    step.freeze(indices, "there is one place for each")
    for place in range(begin):
        step.agree(data[place], indices[place])
    return [(*indices[:-1], *data[end:])]


@rule("Range")
def _range(step: Step) -> list[Axes]:
    length = step.shapes[0][0]
    limit = step.numbers.get(step.node.input[1])
    if not any(map(step.is_computed, range(3))):
        return [step.constants([length])]
    values = [step.ints(slot) for slot in range(3)]
    if limit is None or values[0] != [0] or values[2] != [1]:
        raise NotUnderstood("its length depends on a width")
    return [(limit[0],)]


@rule("ConstantOfShape")
def _constant_of_shape(step: Step) -> list[Axes]:
    numbers = step.numbers.get(step.node.input[0])
    if numbers is None or math.prod(step.shapes[0]) == 0:
        return [step.constants(step.shapes[0])]
    is_float = step.tensors.dtypes[step.node.output[0]].kind == "f"
    if is_float:
        numbers = tuple(
            algebra.free(algebra.size_of(item)) if algebra.is_constant(item) else item
            for item in numbers
        )
    step.rewrite_input(0, numbers)
    return [numbers]


@rule("Shape", "Size", "Constant")
def _shape(step: Step) -> list[Axes]:
    return [step.constants(step.shapes[0])]
