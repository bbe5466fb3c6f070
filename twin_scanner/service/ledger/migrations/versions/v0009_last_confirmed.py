"""When each destination last confirmed a delivery is asked by every look at the destinations."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_deliveries_confirmed", "deliveries", ["destination", "confirmed_at"])


def downgrade() -> None:
    """Remove it."""
    op.drop_index("ix_deliveries_confirmed", "deliveries")
