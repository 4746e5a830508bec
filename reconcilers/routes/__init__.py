"""Routes: the names on mc-proxy's listeners, each leading to a ready backend."""
