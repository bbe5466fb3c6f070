"""What each job adds to the twin record is kept; of what was recorded before there is nothing to keep."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "twin_updates",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("made_at", sa.DateTime, nullable=False),
        sa.Column("patient_id", sa.Text),
        sa.Column("document", sa.JSON),
        sa.Column("target", sa.Text),
        sa.Column("recorded_at", sa.DateTime),
        sa.Column("erased_at", sa.DateTime),
    )
    op.create_index("ix_twin_updates_order", "twin_updates", ["made_at", "job_id"])
    op.create_index("ix_twin_updates_patient", "twin_updates", ["patient_id"])


def downgrade() -> None:
    """There is none: an earlier version would leave patients' identities where nobody looks for them."""
    raise NotImplementedError("Restore the backup of the ledger that was made before the migration.")
