"""Simulated devices: the real agent and client, virtual time, known truth, chosen disturbances.

A simulated board has meters whose true energy is known, in virtual time or as a file system that
stands in for /sys while the real agent runs on this machine (`sim:board`).
"""

from .board_options import BoardOptions
from .board_server import BoardServer
from .board_transport import BoardDevice
from .disturbances import PRESETS, Disturbances
from .transport import SimulatedTransport, simulated_device
from .virtual_board import VirtualBoard
from .virtual_machine import VirtualMachine

__all__ = [
    "PRESETS",
    "BoardDevice",
    "BoardOptions",
    "BoardServer",
    "Disturbances",
    "SimulatedTransport",
    "VirtualBoard",
    "VirtualMachine",
    "simulated_device",
]
