"""Studies before the jobs, deliveries behind them, and what is kept of both.

A job's three steps become one render and a delivery per destination: `delivered` is a rendered job whose PACS delivery
is confirmed. No row says on which node its files lie: each node adopts, at its start, those whose files it has.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PACS, TWIN = "pacs", "twin"
C_STORE, FHIR = "C-STORE status", "FHIR transaction"
NOT_CLEARED = sa.text("cleared_at IS NULL")
CLAIMED = sa.text("lease_owner IS NOT NULL")


def upgrade() -> None:
    """Make the new tables, fill them from the old ones, and change the old ones."""
    _make_studies()
    _make_deliveries()
    _make_what_is_kept()
    _change_jobs()
    _fill_deliveries()
    _end_and_hold_jobs()
    op.execute(
        "INSERT INTO objects (series_uid, job_id, modality, instance_count)"
        " SELECT pet_series_uid, job_id, 'PT', 0 FROM jobs WHERE pet_series_uid IS NOT NULL"
    )
    op.execute(
        "INSERT INTO studies (state, attempts, reason, study_uid, calling_ae, received, evidence, fingerprint,"
        " taken_at) SELECT 'taken', 0, '', study_uid, '', 0, 'quiet period', fingerprint, taken_at FROM intake"
    )
    op.drop_table("intake")


def downgrade() -> None:
    """There is none: what was delivered where does not fit into the old table."""
    raise NotImplementedError("Restore the backup of the ledger that was made before the migration.")


def _waiting() -> list[sa.Column]:  # type: ignore[type-arg]
    return [
        sa.Column("node", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.DateTime),
        sa.Column("waiting_since", sa.DateTime),
        sa.Column("lease_owner", sa.String(128)),
        sa.Column("reason", sa.Text, nullable=False),
    ]


def _index_claimed(table: str) -> None:
    op.create_index(f"ix_{table}_claimed", table, ["node"], sqlite_where=CLAIMED, postgresql_where=CLAIMED)


def _make_studies() -> None:
    op.create_table(
        "studies",
        sa.Column("study_id", sa.Integer, primary_key=True),
        *_waiting(),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("received", sa.Integer, nullable=False),
        sa.Column("first_instance_at", sa.DateTime),
        sa.Column("last_instance_at", sa.DateTime),
        sa.Column("evidence", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("taken_at", sa.DateTime),
        sa.UniqueConstraint("node", "study_uid", name="uq_studies_node"),
    )
    op.create_index("ix_studies_lane", "studies", ["state", "node", "due_at"])
    _index_claimed("studies")


def _make_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", sa.Integer, primary_key=True),
        *_waiting(),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("destination", sa.String(32), nullable=False),
        sa.Column("after", sa.String(32)),
        sa.Column("transaction_uid", sa.String(64)),
        sa.Column("stored_at", sa.DateTime),
        sa.Column("confirmed_at", sa.DateTime),
        sa.Column("confirmed_by", sa.String(64), nullable=False),
        sa.UniqueConstraint("job_id", "destination", name="uq_deliveries_job"),
    )
    op.create_index("ix_deliveries_lane", "deliveries", ["state", "node", "destination", "due_at"])
    _index_claimed("deliveries")


def _make_what_is_kept() -> None:
    op.create_table(
        "objects",
        sa.Column("series_uid", sa.String(64), primary_key=True),
        sa.Column("job_id", sa.String(32), nullable=False, index=True),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("instance_count", sa.Integer, nullable=False),
    )
    op.create_table(
        "results",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("report", sa.JSON, nullable=False),
        sa.Column("features", sa.JSON, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("event_id", sa.Integer, primary_key=True),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("of_table", sa.String(16), nullable=False),
        sa.Column("row_id", sa.String(96), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("ix_events_row", "events", ["of_table", "row_id"])
    op.create_index("ix_events_chain", "events", ["node", "event_id"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(96), primary_key=True),
        sa.Column("node", sa.String(64)),
        sa.Column("owner", sa.String(128)),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.Column("taken_at", sa.DateTime),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime),
        sa.Column("exit_code", sa.Integer),
    )
    op.create_index("ix_runs_name", "runs", ["name", "run_id"])


def _change_jobs() -> None:
    op.drop_index("ix_jobs_state", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("node", sa.String(64)))
        jobs.add_column(sa.Column("waiting_since", sa.DateTime))
        jobs.add_column(sa.Column("kind", sa.String(16), nullable=False, server_default="render"))
        jobs.add_column(sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("ended_at", sa.DateTime))
        jobs.add_column(sa.Column("cleared_at", sa.DateTime))
        jobs.add_column(sa.Column("held_for", sa.String(32), nullable=False, server_default=""))
        jobs.alter_column("due_at", existing_type=sa.DateTime(), nullable=True)
        jobs.drop_column("lease_until")
    op.execute("UPDATE jobs SET lease_owner = NULL")
    op.create_index("ix_jobs_lane", "jobs", ["state", "node", "priority", "due_at", "job_id"])
    op.create_index("ix_jobs_newest", "jobs", ["made_at", "job_id"])
    op.create_index("ix_jobs_newest_in_state", "jobs", ["state", "made_at", "job_id"])
    op.create_index(
        "ix_jobs_clearing",
        "jobs",
        ["ended_at", "job_id"],
        sqlite_where=NOT_CLEARED,
        postgresql_where=NOT_CLEARED,
    )
    _index_claimed("jobs")


def _fill_deliveries() -> None:
    """A delivery per destination for every job that was rendered, from where the job stands or stood."""
    columns = (
        "INSERT INTO deliveries (job_id, destination, after, state, attempts, due_at, waiting_since, reason, stored_at,"
        " confirmed_at, confirmed_by) SELECT job_id, "
    )
    stands = "coalesce(stood_at, state)"
    rendered = f"FROM jobs WHERE {stands} IN ('rendered', 'delivered', 'done')"
    given_up = "CASE state WHEN 'failed' THEN 'failed' WHEN 'rejected' THEN 'held' ELSE 'waiting' END"
    at_pacs, at_twin = f"{stands} = 'rendered'", f"{stands} = 'delivered'"
    open_at = "state IN ('rendered', 'delivered')"
    op.execute(
        f"{columns} '{PACS}', NULL, CASE WHEN {at_pacs} THEN {given_up} ELSE 'confirmed' END,"
        f" CASE WHEN {at_pacs} THEN attempts ELSE 0 END,"
        f" CASE WHEN {at_pacs} AND {open_at} THEN due_at END, CASE WHEN {at_pacs} THEN updated_at END,"
        f" CASE WHEN {at_pacs} THEN reason ELSE '' END,"
        f" CASE WHEN {at_pacs} THEN NULL ELSE updated_at END, CASE WHEN {at_pacs} THEN NULL ELSE updated_at END,"
        f" CASE WHEN {at_pacs} THEN '' ELSE '{C_STORE}' END {rendered}"
    )
    op.execute(
        f"{columns} '{TWIN}', '{PACS}',"
        f" CASE WHEN {at_pacs} THEN 'waiting' WHEN {at_twin} THEN {given_up} ELSE 'confirmed' END,"
        f" CASE WHEN {at_twin} THEN attempts ELSE 0 END,"
        f" CASE WHEN {at_twin} AND {open_at} THEN due_at END, CASE WHEN {at_twin} THEN updated_at END,"
        f" CASE WHEN {at_twin} THEN reason ELSE '' END,"
        f" CASE WHEN state = 'done' THEN updated_at END, CASE WHEN state = 'done' THEN updated_at END,"
        f" CASE WHEN state = 'done' THEN '{FHIR}' ELSE '' END {rendered}"
    )


def _end_and_hold_jobs() -> None:
    """What was rejected after its render was refused by a destination, not by the CT: a person may release it now."""
    op.execute("UPDATE jobs SET waiting_since = updated_at WHERE state = 'queued'")
    op.execute(
        "UPDATE jobs SET state = 'held', held_for = 'delivery' WHERE state = 'rejected'"
        " AND stood_at IN ('rendered', 'delivered')"
    )
    op.execute("UPDATE jobs SET state = 'rendered' WHERE state = 'delivered'")
    op.execute("UPDATE jobs SET stood_at = 'rendered' WHERE stood_at = 'delivered'")
    op.execute("UPDATE jobs SET due_at = NULL WHERE state <> 'queued'")
    op.execute("UPDATE jobs SET attempts = 0, reason = '' WHERE state = 'rendered'")
    op.execute("UPDATE jobs SET ended_at = updated_at WHERE state IN ('done', 'superseded', 'rejected')")
