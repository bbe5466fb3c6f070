"""Deliveries have the turn of their job, by which they are taken."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what waits already has its job's turn, or the time since which it waits."""
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.add_column(sa.Column("turn_at", sa.DateTime))
    op.execute(
        "UPDATE deliveries SET turn_at = COALESCE("
        "(SELECT turn_at FROM jobs WHERE jobs.job_id = deliveries.job_id), waiting_since)"
    )
    op.drop_index("ix_deliveries_lane", "deliveries")
    lane = ["state", "node", "destination", "turn_at", "due_at", "delivery_id"]
    op.create_index("ix_deliveries_lane", "deliveries", lane)


def downgrade() -> None:
    """There is none: an earlier version would let an urgent PET wait behind a nightly transfer."""
    raise NotImplementedError("Restore the backup of the ledger that was made before the migration.")
