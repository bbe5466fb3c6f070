"""Run by Alembic: migrates over the connection that the ledger hands over."""

from alembic import context

from twin_scanner.service.ledger.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
