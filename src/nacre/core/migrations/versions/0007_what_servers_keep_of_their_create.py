"""what servers keep of their create"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('servers', schema=None) as batch_op:
        batch_op.add_column(sa.Column('trusted_image_certificates', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('injected_files', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('root_device_tag', sa.String(length=60), nullable=True))

    with op.batch_alter_table('ports', schema=None) as batch_op:
        batch_op.add_column(sa.Column('device_tag', sa.String(length=60), nullable=True))
