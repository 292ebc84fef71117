"""what the directory rules need

A role's name becomes unique in its domain only. SQLite cannot drop a constraint: the table is made anew, and dropping the old one takes
the rows that refer to it along, so these are put aside meanwhile, of whatever tables there are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('endpoint_groups',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.Text(), nullable=True),
    sa.Column('filters', sa.JSON(none_as_null=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_endpoint_groups'))
    )
    op.create_table('failed_logins',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('since', sa.DateTime(), nullable=False),
    sa.Column('failures', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_failed_logins'))
    )
    op.create_table('registered_limits',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('service_id', sa.String(length=64), nullable=False),
    sa.Column('region_id', sa.String(length=255), nullable=True),
    sa.Column('resource_name', sa.String(length=255), nullable=False),
    sa.Column('default_limit', sa.BigInteger(), nullable=False),
    sa.Column('description', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['service_id'], ['catalog_services.id'], name=op.f('fk_registered_limits_service_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_registered_limits')),
    sa.UniqueConstraint('service_id', 'region_id', 'resource_name', name=op.f('uq_registered_limits_service_id_region_id_resource_name'))
    )
    with op.batch_alter_table('registered_limits', schema=None) as batch_op:
        batch_op.create_index('ix_registered_limits_anywhere', ['service_id', 'resource_name'], unique=True, sqlite_where=sa.text('region_id IS NULL'), postgresql_where=sa.text('region_id IS NULL'))

    op.create_table('past_passwords',
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('until', sa.DateTime(), nullable=False),
    sa.Column('password_hash', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_past_passwords_user_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('user_id', 'until', name=op.f('pk_past_passwords'))
    )
    op.create_table('project_endpoint_groups',
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('group_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['group_id'], ['endpoint_groups.id'], name=op.f('fk_project_endpoint_groups_group_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_project_endpoint_groups_project_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('project_id', 'group_id', name=op.f('pk_project_endpoint_groups'))
    )
    with op.batch_alter_table('project_endpoint_groups', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_project_endpoint_groups_group_id'), ['group_id'], unique=False)

    op.create_table('project_endpoints',
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('endpoint_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['endpoint_id'], ['catalog_endpoints.id'], name=op.f('fk_project_endpoints_endpoint_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_project_endpoints_project_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('project_id', 'endpoint_id', name=op.f('pk_project_endpoints'))
    )
    with op.batch_alter_table('project_endpoints', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_project_endpoints_endpoint_id'), ['endpoint_id'], unique=False)

    op.create_table('project_tags',
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_project_tags_project_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('project_id', 'name', name=op.f('pk_project_tags'))
    )
    op.create_table('unified_limits',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('registered_id', sa.String(length=64), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=True),
    sa.Column('domain_id', sa.String(length=64), nullable=True),
    sa.Column('resource_limit', sa.BigInteger(), nullable=False),
    sa.Column('description', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['registered_id'], ['registered_limits.id'], name=op.f('fk_unified_limits_registered_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_unified_limits')),
    sa.UniqueConstraint('domain_id', 'registered_id', name=op.f('uq_unified_limits_domain_id_registered_id')),
    sa.UniqueConstraint('project_id', 'registered_id', name=op.f('uq_unified_limits_project_id_registered_id'))
    )
    with op.batch_alter_table('unified_limits', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_unified_limits_registered_id'), ['registered_id'], unique=False)

    with op.batch_alter_table('projects', schema=None) as batch_op:
        batch_op.create_index('ix_projects_page', ['name', 'id'], unique=False)
        batch_op.create_index('ix_projects_parent', ['parent_id'], unique=False)

    kept = _put_aside()
    with op.batch_alter_table('roles', schema=None) as batch_op:
        batch_op.add_column(sa.Column('domain_id', sa.String(length=64), nullable=True))
        batch_op.drop_constraint(batch_op.f('uq_roles_name'), type_='unique')
        batch_op.create_index('ix_roles_everybodys_name', ['name'], unique=True, sqlite_where=sa.text('domain_id IS NULL'), postgresql_where=sa.text('domain_id IS NULL'))
        batch_op.create_unique_constraint(batch_op.f('uq_roles_domain_id_name'), ['domain_id', 'name'])
    _put_back(kept)

    with op.batch_alter_table('users', schema=None) as batch_op:
        batch_op.add_column(sa.Column('password_expires_at', sa.DateTime(), nullable=True))
        batch_op.add_column(sa.Column('password_own', sa.Boolean(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('login_failures', sa.Integer(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('login_failed_at', sa.DateTime(), nullable=True))
        batch_op.add_column(sa.Column('login_at', sa.DateTime(), nullable=True))
        batch_op.create_index('ix_users_page', ['name', 'id'], unique=False)


def _put_aside() -> list[tuple[sa.TableClause, list[dict[str, object]]]]:
    """The rows that refer to roles; none where a constraint can be dropped."""
    conn = op.get_bind()
    if conn.dialect.name != "sqlite":
        return []
    inspector = sa.inspect(conn)
    kept: list[tuple[sa.TableClause, list[dict[str, object]]]] = []
    for name in inspector.get_table_names():
        if any(key["referred_table"] == "roles" for key in inspector.get_foreign_keys(name)):
            columns: list[sa.ColumnClause[object]] = [sa.column(column["name"]) for column in inspector.get_columns(name)]
            table = sa.table(name, *columns)
            kept.append((table, [dict(row._mapping) for row in conn.execute(sa.select(table))]))
            conn.execute(table.delete())
    return kept


def _put_back(kept: list[tuple[sa.TableClause, list[dict[str, object]]]]) -> None:
    conn = op.get_bind()
    for table, rows in kept:
        if rows:
            conn.execute(table.insert(), rows)
