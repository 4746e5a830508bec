"""Host ports: one for each route, unique on the node."""
