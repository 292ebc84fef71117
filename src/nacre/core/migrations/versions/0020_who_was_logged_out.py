"""who was logged out"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('users', schema=None) as batch_op:
        batch_op.add_column(sa.Column('login_since', sa.DateTime(), nullable=True))
    op.execute("UPDATE users SET login_since = password_changed_at")
