"""A stand-in for mc-proxy: its admin API, served over HAProxy."""
