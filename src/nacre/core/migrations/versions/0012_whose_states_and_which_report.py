"""whose task a server's states belong to; which report of a host is the next

A server that is being worked on belongs to the last open task that changes its states.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('servers', schema=None) as batch_op:
        batch_op.add_column(sa.Column('task_id', sa.String(length=36), nullable=True))
    with op.batch_alter_table('hosts', schema=None) as batch_op:
        batch_op.add_column(sa.Column('reports', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), server_default='0', nullable=False))
    op.execute("""UPDATE servers SET task_id = (
        SELECT tasks.id FROM tasks WHERE tasks.seq = (
            SELECT max(open.seq) FROM tasks AS open WHERE open.resource = 'server:' || servers.id AND open.finished_at IS NULL
            AND open.kind NOT IN ('compute.attach_interface', 'compute.detach_interface', 'compute.repair_server')))
        WHERE task_state IS NOT NULL""")
