"""Services, what they hold, and their timeline.

There is no way down: an older version refuses a newer schema, and a backup is
what leads back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def _owner(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["node", "service"],
        ["services.node", "services.name"],
        name=f"fk_{table}_services",
        ondelete="CASCADE",
    )


def upgrade() -> None:
    """Creates all tables."""
    op.create_table(
        "services",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("deletion_requested_at", _TIME, nullable=True),
        sa.Column("finalizers", sa.Text(), nullable=False),
        sa.Column("conditions", sa.Text(), nullable=False),
        sa.Column("components", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node", "name", name="pk_services"),
        sa.UniqueConstraint("uid", name="uq_services_uid"),
    )
    op.create_table(
        "revisions",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("node", "service", "generation", name="pk_revisions"),
        _owner("revisions"),
    )
    op.create_table(
        "ports",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("port", sa.BigInteger(), nullable=False),
        sa.Column("contested", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("node", "service", "component", "route", name="pk_ports"),
        sa.UniqueConstraint("node", "port", name="uq_ports_node_port"),
        _owner("ports"),
    )
    op.create_table(
        "certificates",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("not_after", _TIME, nullable=False),
        sa.Column("renew_at", _TIME, nullable=False),
        sa.Column("cert_path", sa.Text(), nullable=False),
        sa.Column("key_path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node", "service", "hostname", name="pk_certificates"),
        sa.UniqueConstraint("node", "cert_path", name="uq_certificates_node_cert_path"),
        _owner("certificates"),
    )
    op.create_table(
        "claims",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("listener", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node", "listener", "hostname", name="pk_claims"),
        _owner("claims"),
    )
    op.create_index("ix_claims_node_service", "claims", ["node", "service"])
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("drift", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_node_id", "events", ["node", "id"])
    op.create_index("ix_events_node_service_id", "events", ["node", "service", "id"])
