"""What `-o json` prints: stable fields, described in docs/reference/cli.md.

What the agent said is passed on in the API's own models; these only say how it
is put together.
"""
