"""The contracts of transports, runtimes and meters as pytest classes; new ones' tests subclass them.

Beside them stands what tests of a device need in place of hardware: a link that is cut, stalls and
delays on demand, a runtime whose calls take a fixed time, and the library of a made-up NVIDIA card.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest

from .errors import DeviceError, StableDeviceError, TransientDeviceError
from .interfaces import Process, Transport
from .meter_contract import FaultyFiles as FaultyFiles  # noqa: PLC0414 - offered from here
from .meter_contract import MeterContract as MeterContract  # noqa: PLC0414 - offered from here
from .registry import runtime_entry, runtime_module
from .simulated.loopback import LoopbackProcess as LoopbackProcess  # noqa: PLC0414
from .simulated.loopback import LoopbackTransport as LoopbackTransport  # noqa: PLC0414
from .simulated.loopback import (
    write_fixed_time_runtime as write_fixed_time_runtime,  # noqa: PLC0414
)
from .simulated.nvml_library import build_nvml as build_nvml  # noqa: PLC0414

# Programs that the contract runs on the device; Python's standard library is all there is.
_ECHO = """
import sys
length = int(sys.argv[1])
data = sys.stdin.buffer.read(length)
sys.stdout.buffer.write(data)
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
"""
_DESCRIBE = """
import json, os, sys
status = os.stat(sys.argv[1])
print(json.dumps([status.st_size, status.st_mtime_ns, status.st_ino]).ljust(119))
"""
_CAT = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)"
_IS_RUNNING = """
import os, sys
try: os.kill(int(sys.argv[1]), 0)
except ProcessLookupError: print("no ")
else:
    state = open("/proc/%s/stat" % sys.argv[1]).read().rpartition(")")[2].split()[0]
    print("no " if state == "Z" else "yes")
"""

Start = Callable[..., Process]
T = TypeVar("T")


class TransportContract:
    """What every transport must do. Subclasses define `make`.

    The device needs a Python; the contract runs its small programs there.
    """

    # Long enough for a slow link; tests end as soon as the answer is there.
    timeout_s: ClassVar[float] = 30.0
    large_bytes: ClassVar[int] = 16 * 1024 * 1024

    def make(self) -> Transport:
        """Return an open transport."""
        raise NotImplementedError

    @pytest.fixture
    def transport(self) -> Iterator[Transport]:
        """Return an open transport, closed after the test."""
        opened = self.make()
        yield opened
        opened.close()

    @pytest.fixture
    def start(self, transport: Transport) -> Iterator[Start]:
        """Return a function `(code, *arguments)` that runs Python code there; ended after the test."""
        started: list[Process] = []

        def run(code: str, *arguments: object) -> Process:
            command = [transport.python(), "-c", code, *map(str, arguments)]
            started.append(transport.start(command))
            return started[-1]

        yield run
        for process in started:
            process.kill()

    # -- files -----------------------------------------------------------------------------------

    def test_a_pushed_file_is_there_byte_by_byte(self, transport: Transport, start: Start) -> None:
        content = bytes(range(256)) * 500 + b"\r\n\0"
        path = transport.push(content, "contract-bytes.bin")
        process = start(_CAT, path)
        assert process.read(len(content), self.timeout_s) == content

    def test_the_same_name_is_written_once(self, transport: Transport, start: Start) -> None:
        path = transport.push(b"content", "contract-once.bin")
        before = self._describe(start, path)
        assert transport.push(b"content", "contract-once.bin") == path
        assert self._describe(start, path) == before

    def test_a_file_that_was_cut_short_is_written_again(
        self, transport: Transport, start: Start
    ) -> None:
        path = transport.push(b"content", "contract-cut.bin")
        self._wait_until_ended(start("import sys; open(sys.argv[1], 'wb').close()", path))
        assert transport.push(b"content", "contract-cut.bin") == path
        assert start(_CAT, path).read(7, self.timeout_s) == b"content"

    # -- programs --------------------------------------------------------------------------------

    def test_arguments_arrive_as_they_are(self, start: Start) -> None:
        arguments = [
            "a b",
            "",
            "it's",
            '"',
            "$HOME",
            "`id`",
            "; exit 3",
            "*",
            "\\n",
            "ä",
            "--",
            "-x",
        ]
        code = "import json, sys; print(json.dumps(sys.argv[1:]).ljust(999))"
        process = start(code, *arguments)
        assert json.loads(process.read(1000, self.timeout_s)) == arguments

    def test_bytes_come_back_as_they_were_sent(self, start: Start) -> None:
        data = bytes(range(256)) + b"\n\r\n\0\x04\x03\x1a" * 20
        process = start(_ECHO, len(data))
        process.write(data, self.timeout_s)
        assert process.read(len(data), self.timeout_s) == data
        assert process.is_alive()

    def test_large_data_passes_in_both_directions(self, start: Start) -> None:
        data = np.random.default_rng(0).bytes(self.large_bytes)
        process = start(_ECHO, len(data))
        process.write(data, self.timeout_s)
        half = len(data) // 2
        assert process.read(half, self.timeout_s) == data[:half]
        assert process.read(len(data) - half, self.timeout_s) == data[half:]

    def test_two_programs_run_side_by_side(self, start: Start) -> None:
        first, second = start(_ECHO, 3), start(_ECHO, 3)
        second.write(b"two", self.timeout_s)
        first.write(b"one", self.timeout_s)
        assert first.read(3, self.timeout_s) == b"one"
        assert second.read(3, self.timeout_s) == b"two"

    # -- short programs and files back -----------------------------------------------------------

    def test_a_short_program_is_run_to_its_end(self, transport: Transport) -> None:
        code = "import os, sys; os.write(1, b'out\\0\\r\\n'); os.write(2, b'err'); sys.exit(7)"
        done = transport.run([transport.python(), "-c", code], self.timeout_s)
        assert (done.exit_code, done.stdout) == (7, b"out\0\r\n")
        assert done.stderr.endswith(b"err")

    def test_a_short_program_ends_at_its_time_limit(self, transport: Transport) -> None:
        command = [transport.python(), "-c", "import time; time.sleep(60)"]
        self._assert_ends_in_time(transport, lambda: None, lambda _: transport.run(command, 0.5))

    def test_a_program_that_prints_too_much_is_refused(self, transport: Transport) -> None:
        command = [transport.python(), "-c", "print('x' * 100_000)"]
        with pytest.raises(StableDeviceError, match="more than 1000 bytes"):
            transport.run(command, self.timeout_s, max_bytes=1000)

    def test_a_file_is_pulled_byte_by_byte(self, transport: Transport) -> None:
        content = bytes(range(256)) * 500 + b"\r\n\0"
        path = transport.push(content, "contract-pull.bin")
        assert transport.pull(path, len(content)) == content

    def test_a_file_that_is_missing_or_too_large_is_refused(self, transport: Transport) -> None:
        path = transport.push(b"content", "contract-size.bin")
        with pytest.raises(StableDeviceError, match="larger than 6 bytes"):
            transport.pull(path, 6)
        with pytest.raises(StableDeviceError, match="contract-missing"):
            transport.pull(path.replace("size", "missing"), 6)

    # -- the link --------------------------------------------------------------------------------

    def test_it_answers_and_can_be_reached_anew(self, transport: Transport, start: Start) -> None:
        assert transport.is_alive(self.timeout_s)
        transport.reconnect(self.timeout_s)
        assert transport.is_alive(self.timeout_s)
        process = start(_ECHO, 3)
        process.write(b"one", self.timeout_s)
        assert process.read(3, self.timeout_s) == b"one"

    # -- time limits -----------------------------------------------------------------------------

    def test_reading_ends_at_its_time_limit(self, transport: Transport, start: Start) -> None:
        def begin() -> Process:
            process = start("import sys, time; print('x', end='', flush=True); time.sleep(60)")
            assert process.read(1, self.timeout_s) == b"x"
            return process

        process = self._assert_ends_in_time(transport, begin, lambda p: p.read(1, 0.5))
        assert process.is_alive()

    def test_a_slow_answer_counts_as_a_whole(self, transport: Transport, start: Start) -> None:
        def begin() -> Process:
            # A byte now and then must not extend the limit.
            code = "import time\nwhile True: print('x', end='', flush=True); time.sleep(0.1)"
            process = start(code)
            process.read(1, self.timeout_s)
            return process

        self._assert_ends_in_time(transport, begin, lambda p: p.read(1000, 0.7))

    def test_writing_ends_at_its_time_limit(self, transport: Transport, start: Start) -> None:
        large = bytes(self.large_bytes)
        self._assert_ends_in_time(
            transport, lambda: start("import time; time.sleep(60)"), lambda p: p.write(large, 0.5)
        )

    # -- the end ---------------------------------------------------------------------------------

    def test_the_exit_code_is_reported(self, start: Start) -> None:
        process = start("import os; os.write(1, b'half'); os._exit(7)")
        assert process.read(4, self.timeout_s) == b"half"
        with pytest.raises(TransientDeviceError, match="code 7"):
            process.read(1, self.timeout_s)
        self._wait_until_ended(process)

    def test_writing_to_an_ended_program_is_an_error(self, start: Start) -> None:
        process = start("import os; os._exit(5)")
        self._wait_until_ended(process)
        with pytest.raises(TransientDeviceError, match="code 5"):
            process.write(bytes(self.large_bytes), self.timeout_s)

    def test_what_it_said_last_is_in_the_message(self, start: Start) -> None:
        process = start(
            "import sys; print('one\\ntwo: no such thing', file=sys.stderr); sys.exit(1)"
        )
        with pytest.raises(TransientDeviceError, match="two: no such thing"):
            process.read(1, self.timeout_s)
        assert "one" in process.stderr_tail()

    def test_much_on_standard_error_does_not_block(self, start: Start) -> None:
        code = (
            "import sys\nsys.stderr.write('noise\\n' * 300_000 + 'the end')\nprint('done', end='')"
        )
        process = start(code)
        assert process.read(4, self.timeout_s) == b"done"
        self._wait_until_ended(process)
        tail = process.stderr_tail()
        assert tail.endswith("the end")
        assert len(tail) < 10_000

    def test_a_killed_program_is_gone(self, start: Start) -> None:
        process = start("import os, time; print('%9d' % os.getpid(), flush=True); time.sleep(60)")
        pid = int(process.read(10, self.timeout_s))
        process.kill()
        assert not process.is_alive()
        process.kill()
        deadline = time.monotonic() + self.timeout_s
        while start(_IS_RUNNING, pid).read(3, self.timeout_s) != b"no ":
            assert time.monotonic() < deadline, "the program outlives kill()"
            time.sleep(0.1)

    def test_a_program_that_is_not_there_is_an_error(self, transport: Transport) -> None:
        with pytest.raises(DeviceError):
            transport.start(["/no/such/program"]).read(1, self.timeout_s)

    # -- for the tests above ---------------------------------------------------------------------

    def _describe(self, start: Start, path: str) -> Any:
        return json.loads(start(_DESCRIBE, path).read(120, self.timeout_s))

    def _wait_until_ended(self, process: Process) -> None:
        deadline = time.monotonic() + self.timeout_s
        while process.is_alive():
            assert time.monotonic() < deadline, "the program does not end"
            time.sleep(0.02)

    def _assert_ends_in_time(
        self, transport: Transport, begin: Callable[[], T], call: Callable[[T], object]
    ) -> T:
        """Check that a call ends at its limit; return what it was made on.

        A machine may pause for seconds, but not in each of three tries. Each begins anew, since a
        pause so long may have cost the link as well.
        """
        tries_left = 3
        while True:
            subject = begin()
            began = time.monotonic()
            with pytest.raises(TransientDeviceError) as caught:
                call(subject)
            taken_s = time.monotonic() - began
            if taken_s < 5:
                assert "no answer within" in str(caught.value)
                return subject
            tries_left -= 1
            assert tries_left, f"it ended after {taken_s:.1f} s: {caught.value}"
            transport.reconnect(self.timeout_s)


class RuntimeContract:
    """What every runtime must do. Subclasses name it, and define `model` if it reads no ONNX.

    The tests run the runtime in this process, so it must be installed here.

    Attributes:
        name: Its name in the registry.
        package: The package that it imports.
    """

    name: ClassVar[str]
    package: ClassVar[str]

    def model(self, channels: int) -> tuple[bytes, dict[str, Any]]:
        """Return a small model whose cost grows with `channels`, and its inputs by name."""
        return convolution_model(channels)

    @pytest.fixture
    def module(self) -> ModuleType:
        """Return the runtime's module."""
        return runtime_module(self.name)

    def test_version_is_a_text(self, module: ModuleType) -> None:
        assert module.version()
        assert isinstance(module.version(), str)

    def test_a_missing_package_is_an_import_error(
        self, module: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for loaded in [name for name in sys.modules if name.split(".")[0] == self.package]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, self.package, None)
        # The module itself must still load: devices have it whether or not they have the runtime.
        monkeypatch.delitem(sys.modules, module.__name__)
        folder, _, leaf = module.__name__.rpartition(".")
        monkeypatch.setattr(sys.modules[folder], leaf, module)
        fresh = importlib.import_module(module.__name__)
        with pytest.raises(ImportError):
            fresh.version()
        with pytest.raises(ImportError):
            fresh.Runtime(threads=1)

    def test_the_registry_says_how_to_get_it(self) -> None:
        assert "install" in runtime_entry(self.name).install

    def test_a_loaded_model_runs_again_and_again(self, module: ModuleType) -> None:
        run = module.Runtime(threads=1).load(*self.model(8))
        for _ in range(20):
            assert run() is None

    def test_several_models_live_side_by_side(self, module: ModuleType) -> None:
        # A visit runs its variant between runs of the reference.
        runtime = module.Runtime(threads=1)
        runs = [runtime.load(*self.model(channels)) for channels in (4, 16, 4)]
        for _ in range(3):
            for run in runs:
                run()

    def test_a_call_computes_and_does_not_merely_start(self, module: ModuleType) -> None:
        runtime = module.Runtime(threads=1)
        small, large = (_fastest_s(runtime.load(*self.model(size))) for size in (4, 512))
        assert large > 2 * small

    def test_it_takes_no_more_threads_than_it_may(self, module: ModuleType) -> None:
        for threads in (1, 2):
            before = _thread_count()
            runtime = module.Runtime(threads=threads)
            run = runtime.load(*self.model(64))
            run()
            # The calling thread works too.
            assert _thread_count() - before <= threads - 1
            del run, runtime

    def test_a_damaged_model_is_an_error(self, module: ModuleType) -> None:
        model, inputs = self.model(8)
        runtime = module.Runtime(threads=1)
        for damaged in (b"", b"no model", model[: len(model) // 2]):
            with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the runtime raises
                runtime.load(damaged, inputs)()
        runtime.load(model, inputs)()


def convolution_model(channels: int) -> tuple[bytes, dict[str, Any]]:
    """Return an ONNX model of one 3x3 convolution on 32x32 images, and its input by name.

    Args:
        channels: Output channels.
    """
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weight = draw.standard_normal((channels, 3, 3, 3)).astype(np.float32)
    image = draw.standard_normal((1, 3, 32, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["out"], pads=[1, 1, 1, 1])],
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(image.shape))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, channels, 32, 32])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return model.SerializeToString(), {"image": image}


def _fastest_s(run: Callable[[], None]) -> float:
    times = []
    for _ in range(30):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
