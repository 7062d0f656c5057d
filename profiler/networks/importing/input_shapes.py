"""Shapes of inputs as users write them: `--input images=1x3x224x224:float32`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError
from joulemap.showable_text import showable

FORM = "--input NAME=1x3x224x224[:dtype]"
DTYPES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
MAX_DIMENSIONS = 16
# Of one input: a gigabyte in float32.
MAX_ELEMENTS = 1 << 28

_DIMS = re.compile(r"[0-9]{1,12}(?:x[0-9]{1,12})*|scalar")
# Inputs of these names are indices: zero is one in every table.
_INDICES = re.compile(r"(^|_|\.)(ids?|tokens?|index|indices|positions?)$")
_SEED = 20261129


@dataclass(frozen=True)
class InputShape:
    """The shape of one input, batch included.

    Attributes:
        dims: Its sizes.
        name: Which input; None where the network has one only.
        dtype: Its type as numpy writes it; None for what the network says, or float32.
    """

    dims: tuple[int, ...]
    name: str | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        """Return what `parse_input` reads."""
        name = "" if self.name is None else f"{self.name}="
        dtype = "" if self.dtype is None else f":{self.dtype}"
        return f"{name}{'x'.join(map(str, self.dims)) or 'scalar'}{dtype}"


def parse_input(text: str) -> InputShape:
    """Return the shape that a text says: `NAME=1x3x224x224`, `1x3x224x224`, `ids=1x16:int64`.

    Args:
        text: Sizes between `x`, or `scalar`; before them a name and `=`, after them `:` and a type.

    Raises:
        InputError: It says none.

    Example:
        >>> parse_input("ids=1x16:int64")
        InputShape(dims=(1, 16), name='ids', dtype='int64')
    """
    # Names of ONNX files hold `:` and `=`; sizes and types do not.
    name, has_name, rest = text.rpartition("=")
    sizes, has_dtype, dtype = rest.partition(":")
    if has_name and not name:
        raise InputError(f"'{_shown(text)}' names no input before '='; write {FORM}")
    if has_dtype and dtype not in DTYPES:
        raise InputError(
            f"'{_shown(dtype)}' in '{_shown(text)}' is no type of inputs; known are "
            f"{', '.join(DTYPES)}"
        )
    if not _DIMS.fullmatch(sizes):
        raise InputError(f"'{_shown(sizes)}' is no shape; write sizes between x: {FORM}")
    dims = () if sizes == "scalar" else tuple(map(int, sizes.split("x")))
    check_dims(dims, f"'{_shown(text)}'")
    return InputShape(dims, name if has_name else None, dtype if has_dtype else None)


def parse_inputs(inputs: Iterable[str | InputShape]) -> tuple[InputShape, ...]:
    """Return the shapes of several inputs, of which one only may be without a name.

    Args:
        inputs: Texts as `parse_input` reads them, or shapes.

    Raises:
        InputError: One cannot be read, or two say the same input.

    Example:
        >>> [str(shape) for shape in parse_inputs(["a=1x3", "b=1x4:int64"])]
        ['a=1x3', 'b=1x4:int64']
    """
    if isinstance(inputs, str | InputShape):
        inputs = (inputs,)
    shapes = tuple(parse_input(item) if isinstance(item, str) else item for item in inputs)
    names = [shape.name for shape in shapes]
    if len(names) > 1 and None in names:
        raise InputError(
            f"'{_shown(str(shapes[names.index(None)]))}' names no input, and there are {len(names)} of "
            f"them; write {FORM} for each"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"the input '{_shown(twice[0])}' is given twice")
    return shapes


def check_dims(dims: tuple[int, ...], what: str) -> None:
    """Do nothing if an input may have these sizes.

    Raises:
        InputError: They are too many, too large, or none at all.
    """
    if any(dim < 1 for dim in dims):
        raise InputError(f"the shape of {what} has a size below 1")
    if len(dims) > MAX_DIMENSIONS or prod(dims) > MAX_ELEMENTS:
        raise InputError(
            f"the shape of {what} is too large: at most {MAX_DIMENSIONS} sizes and 2**28 elements"
        )


def with_batch(dims: tuple[int, ...], batch: int, what: str) -> tuple[int, ...]:
    """Return an input's sizes at a batch: a leading 1 becomes the batch.

    Args:
        dims: As given or as a convention says.
        batch: Samples per call; 1 leaves the sizes as they are.
        what: Which input, for the sentence.

    Raises:
        InputError: They lead with another batch.

    Example:
        >>> with_batch((1, 3, 8, 8), 4, "images")
        (4, 3, 8, 8)
    """
    if batch == 1 or not dims or dims[0] == batch:
        return dims
    if dims[0] != 1:
        raise InputError(
            f"the input '{_shown(what)}' has the shape {'x'.join(map(str, dims))[:60]}, and the batch "
            f"is {batch}; begin it with 1 or {batch}"
        )
    return (batch, *dims[1:])


def example(dims: tuple[int, ...], dtype: str, name: str) -> NDArray[np.generic]:
    """Return an array to run a network with: the same for the same arguments.

    Args:
        dims: Its sizes.
        dtype: Its type. Real numbers are normally distributed; integers are ones (a mask that
            masks nothing), or zeros where the name says that they are indices; truths are true.
        name: Of the input.

    Example:
        >>> example((1, 3), "int64", "input_ids")
        array([[0, 0, 0]])
    """
    kind = np.dtype(dtype)
    if kind.kind != "f":
        return np.full(dims, 0 if kind.kind in "iu" and is_index(name) else 1, kind)
    generator = np.random.default_rng(_SEED)
    return np.asarray(generator.standard_normal(dims, np.float32), kind)


def is_index(name: str) -> bool:
    """Return whether an input's name says that it holds indices, such as those of words.

    Example:
        >>> is_index("input_ids"), is_index("images")
        (True, False)
    """
    return _INDICES.search(name) is not None


def _shown(text: object) -> str:
    return showable(text, 80)
