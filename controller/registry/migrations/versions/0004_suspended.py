"""Services that are left alone for now, and for whom."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No service was left alone before."""
    op.add_column("services", sa.Column("suspended", sa.Text(), nullable=False, server_default=sa.text("'null'")))
