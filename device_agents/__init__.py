"""How a device is reached, run and metered."""
