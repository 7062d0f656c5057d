"""The machine that is measured on: identity, processors, clocks, heat, what it is busy with."""
