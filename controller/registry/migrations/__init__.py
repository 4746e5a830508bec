"""How the tables came to be: run by Alembic from within the registry."""
