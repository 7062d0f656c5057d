from pathlib import Path

from joulemap.device_agents.registry import RUNTIMES
from joulemap.device_agents.testing import RuntimeContract


class TestOnnxRuntime(RuntimeContract):
    name = "onnxruntime"
    package = "onnxruntime"


def test_every_runtime_has_a_test_file_with_the_contract() -> None:
    for entry in RUNTIMES.values():
        text = (Path(__file__).parent / f"test_{entry.module}.py").read_text()
        assert "(RuntimeContract)" in text
