"""The station's database: SQLite in its folder, or one PostgreSQL for all its programs. SQLAlchemy Core, no ORM.

engine.py      opens either; `reading` and `writing` are the only transactions there are
errors.py      what a database says -> agent.errors
types.py       columns that mean the same on both
tables.py      the store's tables; each area has its own module, all on `metadata`
migrate.py     brings a database to the newest revision: migrations/versions, one line of history
"""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of the station. Constraints are named by rule: a later migration must be able to name what it changes."""
