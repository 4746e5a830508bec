"""Who asked for a generation, the second port of what is updated blue-green, failed renewals, and the images pulled."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Adds to the tables; what is there keeps its meaning."""
    # Its default stays: SQLite could only drop it by making the table anew, and with the old one all that refers to it.
    op.add_column("services", sa.Column("actor", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.execute(
        "UPDATE services SET actor = COALESCE((SELECT r.actor FROM revisions AS r WHERE r.node = services.node"
        " AND r.service = services.name AND r.generation = services.generation), '')"
    )
    with op.batch_alter_table("ports", recreate="auto") as ports:
        ports.add_column(sa.Column("slot", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        ports.drop_constraint("pk_ports", type_="primary")
        ports.create_primary_key("pk_ports", ["node", "service", "component", "route", "slot"])
    op.add_column("certificates", sa.Column("error", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("certificates", sa.Column("failures", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("certificates", sa.Column("retry_at", _TIME, nullable=True))
    op.create_table(
        "images",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("pulled_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("node", "reference", "image_id", name="pk_images"),
    )
