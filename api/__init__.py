"""The contract: what an operator writes, what travels, and what everyone may know of a service."""
