"""Pushed files that are taken back."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Notes of a file that nothing is wanted at its path any more."""
    op.add_column("files", sa.Column("removed", sa.Boolean(), nullable=False, server_default=sa.false()))
