"""Several destinations: which of them a job needs, what became of each instance, and storage commitment.

The twin came after the one PACS by its name; it now comes after every destination that its job requires.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CLAIMED = sa.text("lease_owner IS NOT NULL")


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("deliveries", sa.Column("required", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("deliveries", sa.Column("after_required", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("deliveries", sa.Column("outcome", sa.JSON))
    op.execute(sa.text("UPDATE deliveries SET after_required = (after IS NOT NULL)"))
    # SQLite drops a column by copying its table, and the copy would lose the index's condition.
    op.drop_index("ix_deliveries_claimed", "deliveries")
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.drop_column("after")
    op.create_index("ix_deliveries_claimed", "deliveries", ["node"], sqlite_where=CLAIMED, postgresql_where=CLAIMED)
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(64), primary_key=True),
        sa.Column("delivery_id", sa.Integer, nullable=False, index=True),
        sa.Column("asked_at", sa.DateTime, nullable=False),
        sa.Column("accepted_at", sa.DateTime),
        sa.Column("reported_at", sa.DateTime),
        sa.Column("kept", sa.JSON),
    )


def downgrade() -> None:
    """There is none: several destinations do not fit into the old table."""
    raise NotImplementedError("Restore the backup of the ledger that was made before the migration.")
