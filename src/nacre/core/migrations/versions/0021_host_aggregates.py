"""host aggregates"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('aggregates',
    sa.Column('number', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('zone', sa.String(length=255), nullable=True),
    sa.Column('meta', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=True),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_aggregates')),
    sa.UniqueConstraint('id', name=op.f('uq_aggregates_id')),
    sa.UniqueConstraint('name', name=op.f('uq_aggregates_name'))
    )
    op.create_table('aggregate_hosts',
    sa.Column('aggregate', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['aggregate'], ['aggregates.number'], name=op.f('fk_aggregate_hosts_aggregate'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('aggregate', 'host', name=op.f('pk_aggregate_hosts'))
    )
    with op.batch_alter_table('aggregate_hosts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_aggregate_hosts_host'), ['host'], unique=False)
