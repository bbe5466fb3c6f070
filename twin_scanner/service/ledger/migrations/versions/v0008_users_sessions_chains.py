"""Who may use the console: users and sessions; and of each node's chain of events its head, and how far it was sent."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; the heads are those of the events that are there."""
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.String(256), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("session_hash", sa.String(64), primary_key=True),
        sa.Column("user_name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16)),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("seen_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_sessions_user", "sessions", ["user_name"])
    op.create_table(
        "chains",
        sa.Column("node", sa.String(64), primary_key=True),
        sa.Column("event_id", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("sent_id", sa.Integer, nullable=False),
    )
    op.execute(
        "INSERT INTO chains (node, event_id, hash, sent_id) SELECT node, event_id, hash, 0 FROM events "
        "WHERE event_id IN (SELECT MAX(event_id) FROM events GROUP BY node)"
    )


def downgrade() -> None:
    """There is none: an earlier version would continue no chain from its head."""
    raise NotImplementedError("Restore the backup of the ledger that was made before the migration.")
