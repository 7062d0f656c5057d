"""The agent: the program that runs on the device.

Everything here runs under Python 3.9 or newer with the standard library alone; numpy and the
runtime are imported where they are used. Nothing else of joulemap is imported: the folder travels
to the device as one archive (see `joulemap.device_agents.host.agent_archive`).
"""
