"""Runs migrations over the connection that the registry hands in; there is no other way to start them."""

from alembic import context

from controller.registry.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # Alembic assumes that SQLite cannot roll back a CREATE TABLE; it can, once the driver leaves BEGIN to us.
    transactional_ddl=True,
)
context.run_migrations()
