"""How podman is asked, and what it is told and says."""
