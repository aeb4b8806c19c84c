"""One file per unit: its configuration, its computation, its registration. `weft.core.unit.protocol` finds them."""
