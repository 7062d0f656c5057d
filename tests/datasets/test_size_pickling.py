import copy
import pickle

import pytest

from joulemap.datasets import Size


@pytest.mark.parametrize("text", ["64", "49*conv5", "e1+e3", "a*b-2*c", "0"])
def test_a_size_can_be_copied_and_pickled(text: str) -> None:
    size = Size(text)
    assert copy.copy(size) == copy.deepcopy(size) == pickle.loads(pickle.dumps(size)) == size  # noqa: S301
