"""node tokens"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('node_tokens',
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('expires_at', sa.DateTime(), nullable=False),
    sa.Column('used_at', sa.DateTime(), nullable=True),
    sa.Column('used_by', sa.String(length=255), nullable=True),
    sa.PrimaryKeyConstraint('digest', name=op.f('pk_node_tokens'))
    )
    # ### end Alembic commands ###
