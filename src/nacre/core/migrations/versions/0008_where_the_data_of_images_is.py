"""where the data of images is"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('image_locations',
    sa.Column('image_id', sa.String(length=36), nullable=False),
    sa.Column('store', sa.String(length=64), nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.ForeignKeyConstraint(['image_id'], ['images.id'], name=op.f('fk_image_locations_image_id')),
    sa.PrimaryKeyConstraint('image_id', 'store', name=op.f('pk_image_locations'))
    )
    with op.batch_alter_table('image_locations', schema=None) as batch_op:
        batch_op.create_index('ix_image_locations_deleted', ['status'], unique=False, sqlite_where=sa.text("status = 'deleted'"), postgresql_where=sa.text("status = 'deleted'"))
