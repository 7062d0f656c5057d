"""This side of a link to a device: the agent's archive, its clients, checked answers."""
