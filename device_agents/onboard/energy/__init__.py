"""From what meters read to the energy of a window, with its uncertainty."""
