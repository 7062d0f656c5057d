"""Sources of energy, one module each. They run on the device: Python 3.9, standard library."""
