"""what must not depend on the wall clock: hosts heard of, calls' time, reports counted; and what hosts tell of their daemons"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('hosts', schema=None) as batch_op:
        batch_op.add_column(sa.Column('heard', sa.Float(), nullable=True))
        batch_op.add_column(sa.Column('boot', sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column('trouble', sa.JSON(none_as_null=True), nullable=True))

    with op.batch_alter_table('node_calls', schema=None) as batch_op:
        batch_op.add_column(sa.Column('seconds', sa.Float(), nullable=True))
        batch_op.add_column(sa.Column('until', sa.Float(), nullable=True))
        batch_op.add_column(sa.Column('boot', sa.String(length=64), nullable=True))
    op.execute("UPDATE node_calls SET seconds = 120, boot = '-' WHERE deadline IS NOT NULL AND state = 'open'")

    with op.batch_alter_table('compute_hosts', schema=None) as batch_op:
        batch_op.add_column(sa.Column('reports', sa.Integer(), server_default='0', nullable=False))

    with op.batch_alter_table('servers', schema=None) as batch_op:
        batch_op.add_column(sa.Column('moved_after', sa.Integer(), server_default='0', nullable=False))
