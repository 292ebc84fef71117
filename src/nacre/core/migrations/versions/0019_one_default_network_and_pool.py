"""one default network, and one default pool of a family; what races left beside the first is no default any more"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE networks SET is_default = false WHERE NOT external")
    for table, alike in (('networks', 'true'), ('subnetpools', 'kept.ip_version = subnetpools.ip_version')):
        op.execute(f"UPDATE {table} SET is_default = false WHERE is_default AND EXISTS (SELECT 1 FROM {table} kept WHERE kept.is_default "
                   f"AND {alike} AND (kept.created_at, kept.id) < ({table}.created_at, {table}.id))")
    with op.batch_alter_table('networks', schema=None) as batch_op:
        batch_op.create_index('uq_networks_default', ['is_default'], unique=True, sqlite_where=sa.text('is_default'), postgresql_where=sa.text('is_default'))

    with op.batch_alter_table('subnetpools', schema=None) as batch_op:
        batch_op.create_index('uq_subnetpools_default', ['ip_version'], unique=True, sqlite_where=sa.text('is_default'), postgresql_where=sa.text('is_default'))
