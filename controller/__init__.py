"""The machinery: the registry, the queue and the loops that drive the reconcilers."""
