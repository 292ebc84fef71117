"""the whole directory"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('identity_credentials',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=True),
    sa.Column('type', sa.String(length=255), nullable=False),
    sa.Column('sealed', sa.Text(), nullable=False),
    sa.Column('extra', sa.JSON(none_as_null=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_identity_credentials'))
    )
    with op.batch_alter_table('identity_credentials', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_identity_credentials_user_id'), ['user_id'], unique=False)

    op.create_table('identity_policies',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('type', sa.String(length=255), nullable=False),
    sa.Column('blob', sa.Text(), nullable=False),
    sa.Column('extra', sa.JSON(none_as_null=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_identity_policies'))
    )
    op.create_table('trusts',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('trustor_user_id', sa.String(length=64), nullable=False),
    sa.Column('trustee_user_id', sa.String(length=64), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=True),
    sa.Column('impersonation', sa.Boolean(), nullable=False),
    sa.Column('expires_at', sa.DateTime(), nullable=True),
    sa.Column('remaining_uses', sa.Integer(), nullable=True),
    sa.Column('extra', sa.JSON(none_as_null=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_trusts'))
    )
    with op.batch_alter_table('trusts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_trusts_trustee_user_id'), ['trustee_user_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_trusts_trustor_user_id'), ['trustor_user_id'], unique=False)

    op.create_table('trust_roles',
    sa.Column('trust_id', sa.String(length=64), nullable=False),
    sa.Column('role_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['role_id'], ['roles.id'], name=op.f('fk_trust_roles_role_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['trust_id'], ['trusts.id'], name=op.f('fk_trust_roles_trust_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('trust_id', 'role_id', name=op.f('pk_trust_roles'))
    )
    op.create_table('user_groups',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('domain_id', sa.String(length=64), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('extra', sa.JSON(none_as_null=True), nullable=True),
    sa.ForeignKeyConstraint(['domain_id'], ['domains.id'], name=op.f('fk_user_groups_domain_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_user_groups')),
    sa.UniqueConstraint('domain_id', 'name', name=op.f('uq_user_groups_domain_id_name'))
    )
    op.create_table('group_role_assignments',
    sa.Column('group_id', sa.String(length=64), nullable=False),
    sa.Column('scope', sa.String(length=16), nullable=False),
    sa.Column('scope_id', sa.String(length=64), nullable=False),
    sa.Column('role_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['group_id'], ['user_groups.id'], name=op.f('fk_group_role_assignments_group_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['role_id'], ['roles.id'], name=op.f('fk_group_role_assignments_role_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('group_id', 'scope', 'scope_id', 'role_id', name=op.f('pk_group_role_assignments'))
    )
    op.create_table('user_group_members',
    sa.Column('group_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['group_id'], ['user_groups.id'], name=op.f('fk_user_group_members_group_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_user_group_members_user_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('group_id', 'user_id', name=op.f('pk_user_group_members'))
    )
    with op.batch_alter_table('user_group_members', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_user_group_members_user_id'), ['user_id'], unique=False)

    with op.batch_alter_table('catalog_endpoints', schema=None) as batch_op:
        batch_op.add_column(sa.Column('extra', sa.JSON(none_as_null=True), nullable=True))
        batch_op.alter_column('region_id',
               existing_type=sa.VARCHAR(length=255),
               nullable=True)

    with op.batch_alter_table('catalog_services', schema=None) as batch_op:
        batch_op.add_column(sa.Column('extra', sa.JSON(none_as_null=True), nullable=True))

    with op.batch_alter_table('domains', schema=None) as batch_op:
        batch_op.add_column(sa.Column('extra', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('options', sa.JSON(none_as_null=True), nullable=True))

    with op.batch_alter_table('projects', schema=None) as batch_op:
        batch_op.add_column(sa.Column('extra', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('options', sa.JSON(none_as_null=True), nullable=True))

    with op.batch_alter_table('regions', schema=None) as batch_op:
        batch_op.add_column(sa.Column('extra', sa.JSON(none_as_null=True), nullable=True))

    with op.batch_alter_table('roles', schema=None) as batch_op:
        batch_op.add_column(sa.Column('extra', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('options', sa.JSON(none_as_null=True), nullable=True))

    with op.batch_alter_table('users', schema=None) as batch_op:
        batch_op.add_column(sa.Column('extra', sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column('options', sa.JSON(none_as_null=True), nullable=True))
