"""The evidence of a job, the priority of a study, the real PET that it holds, and the turns by which both are taken."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what waits already keeps its order, by the time since which it waits."""
    with op.batch_alter_table("studies") as studies:
        studies.add_column(sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
        studies.add_column(sa.Column("turn_at", sa.DateTime))
        studies.add_column(sa.Column("real_pet", sa.String(64), nullable=False, server_default=""))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("turn_at", sa.DateTime))
        jobs.add_column(sa.Column("evidence", sa.String(64), nullable=False, server_default=""))
    op.execute("UPDATE studies SET turn_at = waiting_since")
    op.execute("UPDATE jobs SET turn_at = waiting_since")
    op.drop_index("ix_studies_lane", "studies")
    op.create_index("ix_studies_lane", "studies", ["state", "node", "turn_at", "due_at", "study_id"])
    op.drop_index("ix_jobs_lane", "jobs")
    op.create_index("ix_jobs_lane", "jobs", ["state", "node", "turn_at", "due_at", "job_id"])


def downgrade() -> None:
    """There is none: an earlier version would take an incomplete study for a complete one."""
    raise NotImplementedError("Restore the backup of the ledger that was made before the migration.")
