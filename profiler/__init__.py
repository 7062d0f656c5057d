"""The run: networks, sampling, protocol, campaign, report, command line."""
