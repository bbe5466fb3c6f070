"""What a person is shown: by what a hospital knows a study, since when work goes on, how far it is, signs of life."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what was kept apart stood in the events alone."""
    with op.batch_alter_table("studies") as studies:
        studies.add_column(sa.Column("begun_at", sa.DateTime))
        studies.add_column(sa.Column("study_date", sa.String(8)))
        studies.add_column(sa.Column("accession_number", sa.String(64)))
        studies.add_column(sa.Column("study_description", sa.String(64)))
        studies.add_column(sa.Column("kept_apart", sa.Integer, nullable=False, server_default="0"))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("begun_at", sa.DateTime))
        jobs.add_column(sa.Column("windows_done", sa.Integer))
        jobs.add_column(sa.Column("windows", sa.Integer))
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.add_column(sa.Column("begun_at", sa.DateTime))
    with op.batch_alter_table("leases") as leases:
        leases.add_column(sa.Column("renewed_at", sa.DateTime))
    _count_what_is_kept_apart()
    op.create_index("ix_studies_study", "studies", ["study_uid"])
    apart = sa.text("kept_apart > 0")
    op.create_index("ix_studies_apart", "studies", ["study_id"], sqlite_where=apart, postgresql_where=apart)


def _count_what_is_kept_apart() -> None:
    connection = op.get_bind()
    events = sa.text(
        "SELECT row_id, what, detail FROM events "
        "WHERE of_table = 'studies' AND what IN ('kept apart', 'cleared') ORDER BY event_id"
    )
    count: dict[int, int] = {}
    for row_id, what, detail in connection.execute(events):
        count[int(row_id)] = _count(detail) if what == "kept apart" else 0
    for study_id, apart in count.items():
        if apart:
            values = {"apart": apart, "study_id": study_id}
            connection.execute(sa.text("UPDATE studies SET kept_apart = :apart WHERE study_id = :study_id"), values)


def _count(detail: Any) -> int:
    """An event's detail comes as text from SQLite, and decoded from PostgreSQL."""
    found: dict[str, int] = json.loads(detail) if isinstance(detail, str) else detail
    return found["count"]


def downgrade() -> None:
    """There is none: what is kept apart would be forgotten."""
    raise NotImplementedError("Restore the backup of the ledger that was made before the migration.")
