"""joulemap measures what a neural network costs on a device and fits differentiable cost models.

Every error that joulemap raises on purpose is one of this tree::

    JoulemapError                 the job failed (exit code 1)
    ├── InputError                a mistake in what was given: arguments, files (exit code 2)
    ├── DeviceError               the device or the way to it failed (device_agents.errors)
    │   ├── TransientDeviceError  may work when tried again: agent died, time limit, link dropped
    │   │   └── DeviceInUseError  another campaign measures on the device
    │   └── StableDeviceError     will fail again: no runtime, unsupported operator
    └── LinkLostError             a remote device stayed away too long (device_agents.errors)

An error's message says what happened, where, and what to do, in one or two sentences. Whatever
devices and files wrote into it, it is short and steers no terminal (see `showable_text`).
"""

from . import showable_text

__version__ = "0.1.0"

__all__ = ["InputError", "JoulemapError", "__version__"]


# Of an error's full text.
_MAX_DETAIL = 20_000


class JoulemapError(Exception):
    """The root of every error that joulemap raises on purpose.

    Args:
        message: What happened, where, and what to do. As the error's text it is shortened in its
            middle to 400 characters.

    Attributes:
        full_text: The message as it was before it was shortened, to 20,000 characters.

    Example:
        >>> len(str(JoulemapError("a device's words, " * 1000)))
        400
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        self.full_text = showable_text.showable(
            getattr(message, "full_text", message), _MAX_DETAIL, has_lines=True
        )
        super().__init__(
            showable_text.showable(self.full_text, showable_text.MAX_ERROR, has_lines=True)
        )


class InputError(JoulemapError, ValueError):
    """Something the user gave (an argument, a file, a table) cannot be used as it is."""

    exit_code = 2
