"""Limits on costs: checks, penalties, projection, allocation of channels."""
