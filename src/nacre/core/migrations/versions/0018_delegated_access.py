"""delegated access"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('access_rules',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('service', sa.String(length=64), nullable=False),
    sa.Column('method', sa.String(length=16), nullable=False),
    sa.Column('path', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_access_rules_user_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_access_rules')),
    sa.UniqueConstraint('user_id', 'service', 'method', 'path', name=op.f('uq_access_rules_user_id_service_method_path'))
    )
    op.create_table('application_credentials',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('description', sa.Text(), nullable=True),
    sa.Column('secret_hash', sa.String(length=255), nullable=False),
    sa.Column('unrestricted', sa.Boolean(), nullable=False),
    sa.Column('expires_at', sa.DateTime(), nullable=True),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_application_credentials_user_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_application_credentials')),
    sa.UniqueConstraint('user_id', 'name', name=op.f('uq_application_credentials_user_id_name'))
    )
    with op.batch_alter_table('application_credentials', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_application_credentials_project_id'), ['project_id'], unique=False)

    op.create_table('app_credential_roles',
    sa.Column('credential_id', sa.String(length=64), nullable=False),
    sa.Column('role_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['credential_id'], ['application_credentials.id'], name=op.f('fk_app_credential_roles_credential_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('credential_id', 'role_id', name=op.f('pk_app_credential_roles'))
    )
    op.create_table('app_credential_rules',
    sa.Column('credential_id', sa.String(length=64), nullable=False),
    sa.Column('rule_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['credential_id'], ['application_credentials.id'], name=op.f('fk_app_credential_rules_credential_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['rule_id'], ['access_rules.id'], name=op.f('fk_app_credential_rules_rule_id')),
    sa.PrimaryKeyConstraint('credential_id', 'rule_id', name=op.f('pk_app_credential_rules'))
    )
    with op.batch_alter_table('app_credential_rules', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_app_credential_rules_rule_id'), ['rule_id'], unique=False)

    op.create_table('credential_keys',
    sa.Column('number', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('wrapped', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_credential_keys'))
    )
    with op.batch_alter_table('trusts', schema=None) as batch_op:
        batch_op.add_column(sa.Column('redelegated_trust_id', sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column('redelegation_count', sa.Integer(), server_default='0', nullable=False))
        batch_op.create_index(batch_op.f('ix_trusts_redelegated_trust_id'), ['redelegated_trust_id'], unique=False)


