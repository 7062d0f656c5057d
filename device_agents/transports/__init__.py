"""How commands reach a device: one module per URL scheme (see `device_agents.registry`)."""
