"""Files that are pushed to services."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the tables of files and of their contents; whoever deletes a service waits for its files, too."""
    op.create_table(
        "files",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("managed", sa.Boolean(), nullable=False),
        sa.Column("restart", sa.Boolean(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("laid", sa.Boolean(), nullable=False),
        sa.Column("ever_laid", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node", "service"], ["services.node", "services.name"], name="fk_files_services", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node", "service", "path", "revision", name="pk_files"),
    )
    op.create_index("ix_files_node_sha256", "files", ["node", "sha256"])
    op.create_table(
        "file_contents",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("node", "sha256", name="pk_file_contents"),
    )
    _add_finalizer()


def _add_finalizer() -> None:
    services = sa.table("services", *map(sa.column, ("node", "name", "finalizers", "deletion_requested_at")))
    connection = op.get_bind()
    wanted = sa.select(services).where(services.c.deletion_requested_at.is_(None))
    for node, name, finalizers, _ in connection.execute(wanted).all():
        ours = (services.c.node == node) & (services.c.name == name)
        added = dict.fromkeys([*json.loads(finalizers), "files"])
        connection.execute(services.update().where(ours).values(finalizers=json.dumps(list(added))))
