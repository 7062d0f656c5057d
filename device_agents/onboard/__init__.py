"""The agent: the part that runs on the device, with the standard library and numpy only."""
