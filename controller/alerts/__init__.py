"""Alerts: an event that somebody should know of is handed to a command, which tells them."""
