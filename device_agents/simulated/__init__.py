"""Simulated devices: the real agent and client, virtual time, known truth, chosen disturbances."""

from .disturbances import PRESETS, Disturbances
from .transport import SimulatedTransport, simulated_device
from .virtual_machine import VirtualMachine

__all__ = ["PRESETS", "Disturbances", "SimulatedTransport", "VirtualMachine", "simulated_device"]
