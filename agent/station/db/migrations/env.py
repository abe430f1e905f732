"""Run by Alembic for `agent.station.db.migrate.upgrade`, which brings the connection and its transaction."""

from __future__ import annotations

from alembic import context

from agent.station.db import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite's too: the transaction is begun by hand
    render_as_batch=True,
)
context.run_migrations()
