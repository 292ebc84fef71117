"""first tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('catalog_services',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('type', sa.String(length=255), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('enabled', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_catalog_services'))
    )
    op.create_table('cloud_facts',
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('value', sa.JSON(none_as_null=True), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_cloud_facts'))
    )
    op.create_table('compute_hosts',
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('service_id', sa.String(length=36), nullable=False),
    sa.Column('disabled', sa.Boolean(), nullable=False),
    sa.Column('disabled_reason', sa.String(length=255), nullable=True),
    sa.Column('forced_down', sa.Boolean(), nullable=False),
    sa.Column('reported_at', sa.DateTime(), nullable=False),
    sa.Column('offered', sa.JSON(none_as_null=True), nullable=False),
    sa.PrimaryKeyConstraint('host', name=op.f('pk_compute_hosts')),
    sa.UniqueConstraint('service_id', name=op.f('uq_compute_hosts_service_id'))
    )
    op.create_table('console_tokens',
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('server_id', sa.String(length=36), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('expires_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('digest', name=op.f('pk_console_tokens'))
    )
    with op.batch_alter_table('console_tokens', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_console_tokens_server_id'), ['server_id'], unique=False)

    op.create_table('document_hosts',
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('id', sa.String(length=255), nullable=False),
    sa.Column('applied', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.PrimaryKeyConstraint('host', 'kind', 'id', name=op.f('pk_document_hosts'))
    )
    with op.batch_alter_table('document_hosts', schema=None) as batch_op:
        batch_op.create_index('ix_document_hosts_document', ['kind', 'id'], unique=False)

    op.create_table('documents',
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('id', sa.String(length=255), nullable=False),
    sa.Column('version', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.PrimaryKeyConstraint('kind', 'id', name=op.f('pk_documents'))
    )
    op.create_table('domains',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('enabled', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_domains')),
    sa.UniqueConstraint('name', name=op.f('uq_domains_name'))
    )
    op.create_table('fernet_keys',
    sa.Column('number', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('wrapped', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_fernet_keys'))
    )
    op.create_table('flavors',
    sa.Column('id', sa.String(length=255), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.Text(), nullable=True),
    sa.Column('vcpus', sa.Integer(), nullable=False),
    sa.Column('memory_mb', sa.Integer(), nullable=False),
    sa.Column('root_gb', sa.Integer(), nullable=False),
    sa.Column('ephemeral_gb', sa.Integer(), nullable=False),
    sa.Column('swap_mb', sa.Integer(), nullable=False),
    sa.Column('rxtx_factor', sa.Float(), nullable=False),
    sa.Column('is_public', sa.Boolean(), nullable=False),
    sa.Column('disabled', sa.Boolean(), nullable=False),
    sa.Column('extra_specs', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_flavors')),
    sa.UniqueConstraint('name', name=op.f('uq_flavors_name'))
    )
    op.create_table('hosts',
    sa.Column('number', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=True),
    sa.Column('seen', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('agents', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('last_seen', sa.DateTime(), nullable=True),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_hosts')),
    sa.UniqueConstraint('id', name=op.f('uq_hosts_id')),
    sa.UniqueConstraint('name', name=op.f('uq_hosts_name'))
    )
    op.create_table('images',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=True),
    sa.Column('status', sa.String(length=30), nullable=False),
    sa.Column('visibility', sa.String(length=16), nullable=False),
    sa.Column('owner', sa.String(length=255), nullable=True),
    sa.Column('disk_format', sa.String(length=20), nullable=True),
    sa.Column('container_format', sa.String(length=20), nullable=True),
    sa.Column('size', sa.BigInteger(), nullable=True),
    sa.Column('virtual_size', sa.BigInteger(), nullable=True),
    sa.Column('checksum', sa.String(length=32), nullable=True),
    sa.Column('os_hash_algo', sa.String(length=64), nullable=True),
    sa.Column('os_hash_value', sa.String(length=128), nullable=True),
    sa.Column('upload', sa.String(length=32), nullable=True),
    sa.Column('min_disk', sa.Integer(), nullable=False),
    sa.Column('min_ram', sa.Integer(), nullable=False),
    sa.Column('protected', sa.Boolean(), nullable=False),
    sa.Column('os_hidden', sa.Boolean(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('deleted_at', sa.DateTime(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_images'))
    )
    with op.batch_alter_table('images', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_images_owner'), ['owner'], unique=False)
        batch_op.create_index('ix_images_visibility', ['visibility', 'created_at'], unique=False)

    op.create_table('journal',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('at', sa.DateTime(), nullable=False),
    sa.Column('request_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=True),
    sa.Column('project_id', sa.String(length=64), nullable=True),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('resource_id', sa.String(length=255), nullable=False),
    sa.Column('action', sa.String(length=32), nullable=False),
    sa.Column('fields', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('values', sa.JSON(none_as_null=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_journal'))
    )
    with op.batch_alter_table('journal', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_journal_at'), ['at'], unique=False)
        batch_op.create_index(batch_op.f('ix_journal_request_id'), ['request_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_journal_resource_id'), ['resource_id'], unique=False)

    op.create_table('keypairs',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('type', sa.String(length=16), nullable=False),
    sa.Column('public_key', sa.Text(), nullable=False),
    sa.Column('fingerprint', sa.String(length=255), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_keypairs')),
    sa.UniqueConstraint('user_id', 'name', name=op.f('uq_keypairs_user_id_name'))
    )
    op.create_table('leases',
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('owner', sa.String(length=64), nullable=False),
    sa.Column('boot', sa.String(length=64), nullable=False),
    sa.Column('until', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_leases'))
    )
    op.create_table('network_hosts',
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('tunnel_ip', sa.String(length=64), nullable=True),
    sa.Column('options', sa.JSON(none_as_null=True), nullable=False),
    sa.PrimaryKeyConstraint('host', name=op.f('pk_network_hosts'))
    )
    op.create_table('network_segments',
    sa.Column('network_type', sa.String(length=32), nullable=False),
    sa.Column('physical_network', sa.String(length=64), nullable=False),
    sa.Column('segmentation_id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('network_id', sa.String(length=36), nullable=False),
    sa.PrimaryKeyConstraint('network_type', 'physical_network', 'segmentation_id', name=op.f('pk_network_segments')),
    sa.UniqueConstraint('network_id', name=op.f('uq_network_segments_network_id'))
    )
    op.create_table('network_tags',
    sa.Column('resource_id', sa.String(length=36), nullable=False),
    sa.Column('tag', sa.String(length=255), nullable=False),
    sa.PrimaryKeyConstraint('resource_id', 'tag', name=op.f('pk_network_tags'))
    )
    op.create_table('networks',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.String(length=255), nullable=False),
    sa.Column('revision_number', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('admin_state_up', sa.Boolean(), nullable=False),
    sa.Column('shared', sa.Boolean(), nullable=False),
    sa.Column('external', sa.Boolean(), nullable=False),
    sa.Column('is_default', sa.Boolean(), nullable=False),
    sa.Column('mtu', sa.Integer(), nullable=False),
    sa.Column('port_security_enabled', sa.Boolean(), nullable=False),
    sa.Column('dns_domain', sa.String(length=255), nullable=False),
    sa.Column('availability_zone_hints', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('network_type', sa.String(length=32), nullable=False),
    sa.Column('physical_network', sa.String(length=64), nullable=True),
    sa.Column('segmentation_id', sa.Integer(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_networks'))
    )
    with op.batch_alter_table('networks', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_networks_project_id'), ['project_id'], unique=False)

    op.create_table('node_calls',
    sa.Column('number', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('verb', sa.String(length=64), nullable=False),
    sa.Column('args', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('request_id', sa.String(length=64), nullable=False),
    sa.Column('deadline', sa.DateTime(), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('value', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('detail', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('finished_at', sa.DateTime(), nullable=True),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_node_calls')),
    sa.UniqueConstraint('id', name=op.f('uq_node_calls_id'))
    )
    with op.batch_alter_table('node_calls', schema=None) as batch_op:
        batch_op.create_index('ix_node_calls_open', ['host'], unique=False, sqlite_where=sa.text("state = 'open'"), postgresql_where=sa.text("state = 'open'"))

    op.create_table('placement_consumers',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('project_id', sa.String(length=255), nullable=False),
    sa.Column('user_id', sa.String(length=255), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_placement_consumers'))
    )
    with op.batch_alter_table('placement_consumers', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_placement_consumers_project_id'), ['project_id'], unique=False)

    op.create_table('placement_providers',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('parent_id', sa.String(length=36), nullable=True),
    sa.Column('root_id', sa.String(length=36), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_placement_providers')),
    sa.UniqueConstraint('name', name=op.f('uq_placement_providers_name'))
    )
    with op.batch_alter_table('placement_providers', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_placement_providers_parent_id'), ['parent_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_placement_providers_root_id'), ['root_id'], unique=False)

    op.create_table('placement_resource_classes',
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_placement_resource_classes'))
    )
    op.create_table('placement_traits',
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_placement_traits'))
    )
    op.create_table('quota_limits',
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('service', sa.String(length=32), nullable=False),
    sa.Column('resource', sa.String(length=64), nullable=False),
    sa.Column('limit', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('project_id', 'service', 'resource', name=op.f('pk_quota_limits'))
    )
    op.create_table('quota_projects',
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('project_id', name=op.f('pk_quota_projects'))
    )
    op.create_table('regions',
    sa.Column('id', sa.String(length=255), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('parent_region_id', sa.String(length=255), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_regions'))
    )
    op.create_table('revoked_tokens',
    sa.Column('audit_id', sa.String(length=32), nullable=False),
    sa.Column('expires_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('audit_id', name=op.f('pk_revoked_tokens'))
    )
    op.create_table('roles',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_roles')),
    sa.UniqueConstraint('name', name=op.f('uq_roles_name'))
    )
    op.create_table('security_groups',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.String(length=255), nullable=False),
    sa.Column('revision_number', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('stateful', sa.Boolean(), nullable=False),
    sa.Column('is_default', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_security_groups'))
    )
    with op.batch_alter_table('security_groups', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_security_groups_project_id'), ['project_id'], unique=False)
        batch_op.create_index('uq_security_groups_default', ['project_id'], unique=True, sqlite_where=sa.text('is_default'), postgresql_where=sa.text('is_default'))

    op.create_table('server_seen',
    sa.Column('server_id', sa.String(length=36), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('power', sa.String(length=16), nullable=False),
    sa.PrimaryKeyConstraint('server_id', name=op.f('pk_server_seen'))
    )
    with op.batch_alter_table('server_seen', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_server_seen_host'), ['host'], unique=False)

    op.create_table('server_tags',
    sa.Column('server_id', sa.String(length=36), nullable=False),
    sa.Column('tag', sa.String(length=60), nullable=False),
    sa.PrimaryKeyConstraint('server_id', 'tag', name=op.f('pk_server_tags'))
    )
    with op.batch_alter_table('server_tags', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_server_tags_tag'), ['tag'], unique=False)

    op.create_table('servers',
    sa.Column('number', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.Text(), nullable=True),
    sa.Column('hostname', sa.String(length=255), nullable=False),
    sa.Column('reservation_id', sa.String(length=32), nullable=False),
    sa.Column('launch_index', sa.Integer(), nullable=False),
    sa.Column('flavor_id', sa.String(length=255), nullable=False),
    sa.Column('flavor', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('vcpus', sa.Integer(), nullable=False),
    sa.Column('memory_mb', sa.Integer(), nullable=False),
    sa.Column('image_id', sa.String(length=36), nullable=True),
    sa.Column('image', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('key_name', sa.String(length=255), nullable=True),
    sa.Column('key', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('user_data', sa.Text(), nullable=True),
    sa.Column('seed', sa.String(length=64), nullable=False),
    sa.Column('config_drive', sa.String(length=16), nullable=False),
    sa.Column('meta', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('availability_zone', sa.String(length=255), nullable=True),
    sa.Column('pinned_availability_zone', sa.String(length=255), nullable=True),
    sa.Column('hints', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('wanted_host', sa.String(length=255), nullable=True),
    sa.Column('access_ip_v4', sa.String(length=64), nullable=True),
    sa.Column('access_ip_v6', sa.String(length=64), nullable=True),
    sa.Column('disk_config', sa.String(length=16), nullable=False),
    sa.Column('root_device_name', sa.String(length=255), nullable=True),
    sa.Column('locked_by', sa.String(length=16), nullable=True),
    sa.Column('locked_reason', sa.String(length=255), nullable=True),
    sa.Column('host', sa.String(length=255), nullable=True),
    sa.Column('vm_state', sa.String(length=32), nullable=False),
    sa.Column('task_state', sa.String(length=32), nullable=True),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('moved_at', sa.DateTime(), nullable=False),
    sa.Column('fault', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('launched_at', sa.DateTime(), nullable=True),
    sa.Column('terminated_at', sa.DateTime(), nullable=True),
    sa.Column('deleted_at', sa.DateTime(), nullable=True),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_servers')),
    sa.UniqueConstraint('id', name=op.f('uq_servers_id'))
    )
    with op.batch_alter_table('servers', schema=None) as batch_op:
        batch_op.create_index('ix_servers_created', ['created_at', 'id'], unique=False, sqlite_where=sa.text('deleted_at IS NULL'), postgresql_where=sa.text('deleted_at IS NULL'))
        batch_op.create_index(batch_op.f('ix_servers_host'), ['host'], unique=False)
        batch_op.create_index('ix_servers_project', ['project_id', 'created_at', 'id'], unique=False, sqlite_where=sa.text('deleted_at IS NULL'), postgresql_where=sa.text('deleted_at IS NULL'))
        batch_op.create_index(batch_op.f('ix_servers_reservation_id'), ['reservation_id'], unique=False)
        batch_op.create_index('ix_servers_updated', ['updated_at'], unique=False)

    op.create_table('task_steps',
    sa.Column('task_id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=True),
    sa.Column('call_id', sa.String(length=36), nullable=True),
    sa.Column('result', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('until', sa.Float(), nullable=True),
    sa.Column('boot', sa.String(length=64), nullable=True),
    sa.Column('started_at', sa.DateTime(), nullable=False),
    sa.Column('finished_at', sa.DateTime(), nullable=True),
    sa.PrimaryKeyConstraint('task_id', 'name', name=op.f('pk_task_steps'))
    )
    op.create_table('tasks',
    sa.Column('seq', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('resource', sa.String(length=128), nullable=False),
    sa.Column('request_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=True),
    sa.Column('project_id', sa.String(length=64), nullable=True),
    sa.Column('args', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('cancelling', sa.Boolean(), nullable=False),
    sa.Column('owner', sa.String(length=64), nullable=True),
    sa.Column('boot', sa.String(length=64), nullable=True),
    sa.Column('until', sa.Float(), nullable=True),
    sa.Column('waiting', sa.String(length=128), nullable=True),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('finished_at', sa.DateTime(), nullable=True),
    sa.Column('error', sa.JSON(none_as_null=True), nullable=True),
    sa.PrimaryKeyConstraint('seq', name=op.f('pk_tasks')),
    sa.UniqueConstraint('id', name=op.f('uq_tasks_id'))
    )
    with op.batch_alter_table('tasks', schema=None) as batch_op:
        batch_op.create_index('ix_tasks_open', ['state', 'seq'], unique=False, sqlite_where=sa.text('finished_at IS NULL'), postgresql_where=sa.text('finished_at IS NULL'))
        batch_op.create_index(batch_op.f('ix_tasks_resource'), ['resource'], unique=False)
        batch_op.create_index('uq_tasks_running', ['resource'], unique=True, sqlite_where=sa.text("state = 'running'"), postgresql_where=sa.text("state = 'running'"))

    op.create_table('catalog_endpoints',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('service_id', sa.String(length=64), nullable=False),
    sa.Column('interface', sa.String(length=16), nullable=False),
    sa.Column('region_id', sa.String(length=255), nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('enabled', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['service_id'], ['catalog_services.id'], name=op.f('fk_catalog_endpoints_service_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_catalog_endpoints'))
    )
    op.create_table('dhcp_servers',
    sa.Column('network_id', sa.String(length=36), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=True),
    sa.ForeignKeyConstraint(['network_id'], ['networks.id'], name=op.f('fk_dhcp_servers_network_id')),
    sa.PrimaryKeyConstraint('network_id', name=op.f('pk_dhcp_servers'))
    )
    with op.batch_alter_table('dhcp_servers', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_dhcp_servers_host'), ['host'], unique=False)

    op.create_table('flavor_access',
    sa.Column('flavor_id', sa.String(length=255), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['flavor_id'], ['flavors.id'], name=op.f('fk_flavor_access_flavor_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('flavor_id', 'project_id', name=op.f('pk_flavor_access'))
    )
    op.create_table('image_members',
    sa.Column('image_id', sa.String(length=36), nullable=False),
    sa.Column('member_id', sa.String(length=255), nullable=False),
    sa.Column('status', sa.String(length=20), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.ForeignKeyConstraint(['image_id'], ['images.id'], name=op.f('fk_image_members_image_id')),
    sa.PrimaryKeyConstraint('image_id', 'member_id', name=op.f('pk_image_members'))
    )
    with op.batch_alter_table('image_members', schema=None) as batch_op:
        batch_op.create_index('ix_image_members_member', ['member_id'], unique=False)

    op.create_table('image_properties',
    sa.Column('image_id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('value', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['image_id'], ['images.id'], name=op.f('fk_image_properties_image_id')),
    sa.PrimaryKeyConstraint('image_id', 'name', name=op.f('pk_image_properties'))
    )
    op.create_table('image_tags',
    sa.Column('image_id', sa.String(length=36), nullable=False),
    sa.Column('value', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['image_id'], ['images.id'], name=op.f('fk_image_tags_image_id')),
    sa.PrimaryKeyConstraint('image_id', 'value', name=op.f('pk_image_tags'))
    )
    op.create_table('implied_roles',
    sa.Column('prior_role_id', sa.String(length=64), nullable=False),
    sa.Column('implied_role_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['implied_role_id'], ['roles.id'], name=op.f('fk_implied_roles_implied_role_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['prior_role_id'], ['roles.id'], name=op.f('fk_implied_roles_prior_role_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('prior_role_id', 'implied_role_id', name=op.f('pk_implied_roles'))
    )
    op.create_table('placement_allocations',
    sa.Column('consumer_id', sa.String(length=36), nullable=False),
    sa.Column('provider_id', sa.String(length=36), nullable=False),
    sa.Column('resource_class', sa.String(length=255), nullable=False),
    sa.Column('used', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['consumer_id'], ['placement_consumers.id'], name=op.f('fk_placement_allocations_consumer_id')),
    sa.ForeignKeyConstraint(['provider_id'], ['placement_providers.id'], name=op.f('fk_placement_allocations_provider_id')),
    sa.PrimaryKeyConstraint('consumer_id', 'provider_id', 'resource_class', name=op.f('pk_placement_allocations'))
    )
    with op.batch_alter_table('placement_allocations', schema=None) as batch_op:
        batch_op.create_index('ix_placement_allocations_provider', ['provider_id', 'resource_class'], unique=False)

    op.create_table('placement_inventories',
    sa.Column('provider_id', sa.String(length=36), nullable=False),
    sa.Column('resource_class', sa.String(length=255), nullable=False),
    sa.Column('total', sa.Integer(), nullable=False),
    sa.Column('reserved', sa.Integer(), nullable=False),
    sa.Column('min_unit', sa.Integer(), nullable=False),
    sa.Column('max_unit', sa.Integer(), nullable=False),
    sa.Column('step_size', sa.Integer(), nullable=False),
    sa.Column('allocation_ratio', sa.Float(), nullable=False),
    sa.ForeignKeyConstraint(['provider_id'], ['placement_providers.id'], name=op.f('fk_placement_inventories_provider_id')),
    sa.PrimaryKeyConstraint('provider_id', 'resource_class', name=op.f('pk_placement_inventories'))
    )
    with op.batch_alter_table('placement_inventories', schema=None) as batch_op:
        batch_op.create_index('ix_placement_inventories_class', ['resource_class'], unique=False)

    op.create_table('placement_provider_aggregates',
    sa.Column('provider_id', sa.String(length=36), nullable=False),
    sa.Column('aggregate_id', sa.String(length=36), nullable=False),
    sa.ForeignKeyConstraint(['provider_id'], ['placement_providers.id'], name=op.f('fk_placement_provider_aggregates_provider_id')),
    sa.PrimaryKeyConstraint('provider_id', 'aggregate_id', name=op.f('pk_placement_provider_aggregates'))
    )
    with op.batch_alter_table('placement_provider_aggregates', schema=None) as batch_op:
        batch_op.create_index('ix_placement_provider_aggregates_aggregate', ['aggregate_id'], unique=False)

    op.create_table('placement_provider_traits',
    sa.Column('provider_id', sa.String(length=36), nullable=False),
    sa.Column('trait', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['provider_id'], ['placement_providers.id'], name=op.f('fk_placement_provider_traits_provider_id')),
    sa.PrimaryKeyConstraint('provider_id', 'trait', name=op.f('pk_placement_provider_traits'))
    )
    with op.batch_alter_table('placement_provider_traits', schema=None) as batch_op:
        batch_op.create_index('ix_placement_provider_traits_trait', ['trait'], unique=False)

    op.create_table('ports',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.String(length=255), nullable=False),
    sa.Column('revision_number', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('network_id', sa.String(length=36), nullable=False),
    sa.Column('mac_address', sa.String(length=17), nullable=False),
    sa.Column('admin_state_up', sa.Boolean(), nullable=False),
    sa.Column('device_id', sa.String(length=255), nullable=False),
    sa.Column('device_owner', sa.String(length=255), nullable=False),
    sa.Column('port_security_enabled', sa.Boolean(), nullable=False),
    sa.Column('allowed_address_pairs', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('extra_dhcp_opts', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('dns_name', sa.String(length=255), nullable=False),
    sa.Column('vnic_type', sa.String(length=64), nullable=False),
    sa.Column('profile', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('attached', sa.Integer(), nullable=False),
    sa.Column('goes_with_server', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['network_id'], ['networks.id'], name=op.f('fk_ports_network_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_ports')),
    sa.UniqueConstraint('network_id', 'mac_address', name=op.f('uq_ports_network_id_mac_address'))
    )
    with op.batch_alter_table('ports', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_ports_device_id'), ['device_id'], unique=False)
        batch_op.create_index('ix_ports_host', ['host'], unique=False)
        batch_op.create_index(batch_op.f('ix_ports_project_id'), ['project_id'], unique=False)

    op.create_table('projects',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('domain_id', sa.String(length=64), nullable=False),
    sa.Column('parent_id', sa.String(length=64), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('enabled', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['domain_id'], ['domains.id'], name=op.f('fk_projects_domain_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_projects')),
    sa.UniqueConstraint('domain_id', 'name', name=op.f('uq_projects_domain_id_name'))
    )
    op.create_table('role_assignments',
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('scope', sa.String(length=16), nullable=False),
    sa.Column('scope_id', sa.String(length=64), nullable=False),
    sa.Column('role_id', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['role_id'], ['roles.id'], name=op.f('fk_role_assignments_role_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('user_id', 'scope', 'scope_id', 'role_id', name=op.f('pk_role_assignments'))
    )
    op.create_table('security_group_rules',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.String(length=255), nullable=False),
    sa.Column('revision_number', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('security_group_id', sa.String(length=36), nullable=False),
    sa.Column('direction', sa.String(length=8), nullable=False),
    sa.Column('ethertype', sa.String(length=8), nullable=False),
    sa.Column('protocol', sa.String(length=32), nullable=True),
    sa.Column('port_range_min', sa.Integer(), nullable=True),
    sa.Column('port_range_max', sa.Integer(), nullable=True),
    sa.Column('remote_ip_prefix', sa.String(length=64), nullable=True),
    sa.Column('remote_group_id', sa.String(length=36), nullable=True),
    sa.Column('alike', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['remote_group_id'], ['security_groups.id'], name=op.f('fk_security_group_rules_remote_group_id')),
    sa.ForeignKeyConstraint(['security_group_id'], ['security_groups.id'], name=op.f('fk_security_group_rules_security_group_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_security_group_rules')),
    sa.UniqueConstraint('security_group_id', 'alike', name=op.f('uq_security_group_rules_security_group_id_alike'))
    )
    with op.batch_alter_table('security_group_rules', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_security_group_rules_project_id'), ['project_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_security_group_rules_remote_group_id'), ['remote_group_id'], unique=False)

    op.create_table('subnets',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.String(length=255), nullable=False),
    sa.Column('revision_number', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('network_id', sa.String(length=36), nullable=False),
    sa.Column('ip_version', sa.Integer(), nullable=False),
    sa.Column('cidr', sa.String(length=64), nullable=False),
    sa.Column('gateway_ip', sa.String(length=64), nullable=True),
    sa.Column('allocation_pools', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('enable_dhcp', sa.Boolean(), nullable=False),
    sa.Column('dns_nameservers', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('host_routes', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('ipv6_ra_mode', sa.String(length=16), nullable=True),
    sa.Column('ipv6_address_mode', sa.String(length=16), nullable=True),
    sa.Column('service_types', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('dns_publish_fixed_ip', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['network_id'], ['networks.id'], name=op.f('fk_subnets_network_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_subnets'))
    )
    with op.batch_alter_table('subnets', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_subnets_network_id'), ['network_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_subnets_project_id'), ['project_id'], unique=False)

    op.create_table('users',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('domain_id', sa.String(length=64), nullable=False),
    sa.Column('default_project_id', sa.String(length=64), nullable=True),
    sa.Column('enabled', sa.Boolean(), nullable=False),
    sa.Column('password_hash', sa.String(length=255), nullable=True),
    sa.Column('password_changed_at', sa.DateTime(), nullable=True),
    sa.ForeignKeyConstraint(['domain_id'], ['domains.id'], name=op.f('fk_users_domain_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_users')),
    sa.UniqueConstraint('domain_id', 'name', name=op.f('uq_users_domain_id_name'))
    )
    op.create_table('port_addresses',
    sa.Column('subnet_id', sa.String(length=36), nullable=False),
    sa.Column('number', sa.String(length=32), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('port_id', sa.String(length=36), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['port_id'], ['ports.id'], name=op.f('fk_port_addresses_port_id')),
    sa.ForeignKeyConstraint(['subnet_id'], ['subnets.id'], name=op.f('fk_port_addresses_subnet_id')),
    sa.PrimaryKeyConstraint('subnet_id', 'number', name=op.f('pk_port_addresses'))
    )
    with op.batch_alter_table('port_addresses', schema=None) as batch_op:
        batch_op.create_index('ix_port_addresses_address', ['address'], unique=False)
        batch_op.create_index(batch_op.f('ix_port_addresses_port_id'), ['port_id'], unique=False)

    op.create_table('port_bindings',
    sa.Column('port_id', sa.String(length=36), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('vif_type', sa.String(length=64), nullable=False),
    sa.Column('vif_details', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('mechanism', sa.String(length=32), nullable=False),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.ForeignKeyConstraint(['port_id'], ['ports.id'], name=op.f('fk_port_bindings_port_id')),
    sa.PrimaryKeyConstraint('port_id', 'host', name=op.f('pk_port_bindings'))
    )
    with op.batch_alter_table('port_bindings', schema=None) as batch_op:
        batch_op.create_index('ix_port_bindings_host', ['host'], unique=False)

    op.create_table('port_security_groups',
    sa.Column('port_id', sa.String(length=36), nullable=False),
    sa.Column('group_id', sa.String(length=36), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['group_id'], ['security_groups.id'], name=op.f('fk_port_security_groups_group_id')),
    sa.ForeignKeyConstraint(['port_id'], ['ports.id'], name=op.f('fk_port_security_groups_port_id')),
    sa.PrimaryKeyConstraint('port_id', 'group_id', name=op.f('pk_port_security_groups'))
    )
    with op.batch_alter_table('port_security_groups', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_port_security_groups_group_id'), ['group_id'], unique=False)

    op.create_table('routers',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.String(length=255), nullable=False),
    sa.Column('revision_number', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('admin_state_up', sa.Boolean(), nullable=False),
    sa.Column('gateway_network_id', sa.String(length=36), nullable=True),
    sa.Column('gateway_port_id', sa.String(length=36), nullable=True),
    sa.Column('enable_snat', sa.Boolean(), nullable=False),
    sa.Column('routes', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('availability_zone_hints', sa.JSON(none_as_null=True), nullable=False),
    sa.ForeignKeyConstraint(['gateway_network_id'], ['networks.id'], name=op.f('fk_routers_gateway_network_id')),
    sa.ForeignKeyConstraint(['gateway_port_id'], ['ports.id'], name=op.f('fk_routers_gateway_port_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_routers'))
    )
    with op.batch_alter_table('routers', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_routers_gateway_network_id'), ['gateway_network_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_routers_project_id'), ['project_id'], unique=False)

    op.create_table('floating_ips',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('description', sa.String(length=255), nullable=False),
    sa.Column('revision_number', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.Column('updated_at', sa.DateTime(), nullable=False),
    sa.Column('network_id', sa.String(length=36), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('own_port_id', sa.String(length=36), nullable=False),
    sa.Column('port_id', sa.String(length=36), nullable=True),
    sa.Column('fixed_ip_address', sa.String(length=64), nullable=True),
    sa.Column('router_id', sa.String(length=36), nullable=True),
    sa.Column('dns_name', sa.String(length=255), nullable=False),
    sa.Column('dns_domain', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['network_id'], ['networks.id'], name=op.f('fk_floating_ips_network_id')),
    sa.ForeignKeyConstraint(['own_port_id'], ['ports.id'], name=op.f('fk_floating_ips_own_port_id')),
    sa.ForeignKeyConstraint(['port_id'], ['ports.id'], name=op.f('fk_floating_ips_port_id')),
    sa.ForeignKeyConstraint(['router_id'], ['routers.id'], name=op.f('fk_floating_ips_router_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_floating_ips')),
    sa.UniqueConstraint('port_id', 'fixed_ip_address', 'network_id', name='uq_floating_ips_fixed')
    )
    with op.batch_alter_table('floating_ips', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_floating_ips_address'), ['address'], unique=False)
        batch_op.create_index(batch_op.f('ix_floating_ips_network_id'), ['network_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_floating_ips_port_id'), ['port_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_floating_ips_project_id'), ['project_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_floating_ips_router_id'), ['router_id'], unique=False)

    op.create_table('router_hosts',
    sa.Column('router_id', sa.String(length=36), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=True),
    sa.ForeignKeyConstraint(['router_id'], ['routers.id'], name=op.f('fk_router_hosts_router_id')),
    sa.PrimaryKeyConstraint('router_id', name=op.f('pk_router_hosts'))
    )
    with op.batch_alter_table('router_hosts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_router_hosts_host'), ['host'], unique=False)

    op.create_table('router_subnets',
    sa.Column('router_id', sa.String(length=36), nullable=False),
    sa.Column('subnet_id', sa.String(length=36), nullable=False),
    sa.Column('port_id', sa.String(length=36), nullable=False),
    sa.ForeignKeyConstraint(['port_id'], ['ports.id'], name=op.f('fk_router_subnets_port_id')),
    sa.ForeignKeyConstraint(['router_id'], ['routers.id'], name=op.f('fk_router_subnets_router_id')),
    sa.ForeignKeyConstraint(['subnet_id'], ['subnets.id'], name=op.f('fk_router_subnets_subnet_id')),
    sa.PrimaryKeyConstraint('router_id', 'subnet_id', name=op.f('pk_router_subnets'))
    )
    with op.batch_alter_table('router_subnets', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_router_subnets_port_id'), ['port_id'], unique=False)
        batch_op.create_index('ix_router_subnets_subnet_id', ['subnet_id'], unique=False)

    # ### end Alembic commands ###
