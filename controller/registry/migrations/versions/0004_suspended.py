"""Services that are left alone for now, and for whom; restarts, and what revisions ran."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No service was left alone before, none restarted on somebody's wish."""
    op.add_column("services", sa.Column("suspended", sa.Text(), nullable=False, server_default=sa.text("'null'")))
    op.add_column("services", sa.Column("restarts", sa.Text(), nullable=False, server_default=sa.text("'{}'")))
    op.add_column("revisions", sa.Column("note", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("revisions", sa.Column("digests", sa.Text(), nullable=False, server_default=sa.text("'{}'")))
