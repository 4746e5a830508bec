"""The way back: snapshots of what the agent keeps, and what leads from one to a running agent again."""
