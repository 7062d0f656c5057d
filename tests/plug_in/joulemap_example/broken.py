"""What joulemap must survive: a module that cannot be imported."""

raise RuntimeError("this module is broken")
