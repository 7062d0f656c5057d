"""joulemap measures what a neural network costs on a device and fits differentiable cost models.

Every error that joulemap raises on purpose is one of this tree::

    JoulemapError                 the job failed (exit code 1)
    ├── InputError                a mistake in what was given: arguments, files (exit code 2)
    ├── DeviceError               the device or the way to it failed (device_agents.errors)
    │   ├── TransientDeviceError  may work when tried again: agent died, time limit, link dropped
    │   │   └── DeviceInUseError  another campaign measures on the device
    │   └── StableDeviceError     will fail again: no runtime, unsupported operator
    └── LinkLostError             a remote device stayed away too long (device_agents.errors)

An error's message says what happened, where, and what to do, in one or two sentences.
"""

__version__ = "0.1.0"

__all__ = ["InputError", "JoulemapError", "__version__"]


class JoulemapError(Exception):
    """The root of every error that joulemap raises on purpose."""

    exit_code = 1


class InputError(JoulemapError, ValueError):
    """Something the user gave (an argument, a file, a table) cannot be used as it is."""

    exit_code = 2
