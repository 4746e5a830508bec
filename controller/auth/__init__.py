"""The door: who calls, what they may do, and what is written down of it."""
