"""journal readers: each line's transaction, and where a reader is"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    own = sa.text("0") if sqlite else sa.text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)")
    op.add_column("journal", sa.Column("xid", sa.BigInteger(), server_default=own, nullable=False))
    op.create_index("ix_journal_xid", "journal", ["xid", "id"], unique=False)
    op.create_table('journal_cursors',
    sa.Column('reader', sa.String(length=64), nullable=False),
    sa.Column('xid', sa.BigInteger(), nullable=False),
    sa.Column('id', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('reader', name=op.f('pk_journal_cursors'))
    )
