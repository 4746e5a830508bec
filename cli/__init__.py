"""The operator's command line, and the entry point of the agent."""
