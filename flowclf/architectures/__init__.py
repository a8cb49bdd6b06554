"""Named architectures (functions that return a list of node specs, or a network) and networks that classify nuisances."""
