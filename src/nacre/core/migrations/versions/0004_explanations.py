"""What explanations are made of: decisions of the scheduler, timings of node calls, requests found by their id."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('server_decisions',
    sa.Column('server_id', sa.String(length=36), nullable=False),
    sa.Column('at', sa.DateTime(), nullable=False),
    sa.Column('request_id', sa.String(length=64), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=True),
    sa.Column('body', sa.JSON(none_as_null=True), nullable=False),
    sa.PrimaryKeyConstraint('server_id', name=op.f('pk_server_decisions'))
    )
    with op.batch_alter_table('node_calls', schema=None) as batch_op:
        batch_op.add_column(sa.Column('timing', sa.JSON(none_as_null=True), nullable=True))
        batch_op.create_index(batch_op.f('ix_node_calls_request_id'), ['request_id'], unique=False)

    with op.batch_alter_table('tasks', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_tasks_request_id'), ['request_id'], unique=False)
