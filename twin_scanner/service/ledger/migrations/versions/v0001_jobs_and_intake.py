"""The first tables: jobs and intake."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("study_uid", sa.String(64), nullable=False, index=True),
        sa.Column("frame_of_reference_uid", sa.String(64), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("source_digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("made_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.Column("due_at", sa.DateTime, nullable=False),
        sa.Column("stood_at", sa.String(16)),
        sa.Column("lease_owner", sa.String(128)),
        sa.Column("lease_until", sa.DateTime),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("skipped", sa.JSON, nullable=False),
        sa.Column("instance_count", sa.Integer, nullable=False),
        sa.Column("pet_series_uid", sa.String(64), unique=True),
        sa.Column("model_hash", sa.String(64)),
    )
    op.create_table(
        "intake",
        sa.Column("study_uid", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("taken_at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    """Drop both tables; the jobs are lost."""
    op.drop_table("intake")
    op.drop_table("jobs")
