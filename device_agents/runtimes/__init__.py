"""What executes a variant on the device: one module per runtime, each with `version` and `Runtime`.

The modules travel to the device beside `onboard` and keep to its rules: Python 3.9, the standard
library, the runtime imported where it is used.
"""
