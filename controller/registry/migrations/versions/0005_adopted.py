"""Containers that MCP took over and did not make."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of adopted containers."""
    op.create_table(
        "adopted",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("container_id", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node", "container_id", name="pk_adopted"),
        sa.ForeignKeyConstraint(
            ["node", "service"],
            ["services.node", "services.name"],
            name="fk_adopted_services",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_adopted_node_service", "adopted", ["node", "service"])
