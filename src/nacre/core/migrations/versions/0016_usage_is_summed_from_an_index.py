"""usage is summed from an index"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('placement_allocations', schema=None) as batch_op:
        batch_op.drop_index('ix_placement_allocations_provider')
        batch_op.create_index('ix_placement_allocations_usage', ['provider_id', 'resource_class', 'used'], unique=False)
