"""Certificates: one for each hostname that mc-proxy terminates TLS for."""
