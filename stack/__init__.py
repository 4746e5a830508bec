"""A whole host below one folder: podman, the proxy and the agent, for the demo, the system tests and the benchmarks.

Nothing here is part of the product. It starts the real programs with their own storage, networks, sockets and
configuration, so that several hosts live side by side on one machine and each can be taken away without a trace.

- `layout`: where everything lies
- `processes`: programs that outlive the command that started them
- `podman`: podman's API service with storage of its own
- `images`: tiny images built from what Debian has
- `host`: all parts together; `python -m stack up|down` is what `make up` and `make down` call
- `demo`: the narrated tour, `make demo`
"""
