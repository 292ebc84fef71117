"""Where a cloud lives, and what its operator chose.

A cloud is one folder, its *home*. Unprivileged processes may not be able to walk to it (it may lie below a 0700 folder), so every
process of the cloud works in a mount namespace of its own in which the home is also mounted at `Home.reach`, a path that everybody
can walk. Programs use `reach`; people and messages see `path`.

`nacre.toml` in the home holds options under upstream's names and sections, read once at start, never written by us after the first
start. An unknown option is refused by name: a misspelt ratio must not be silently ignored.
"""

import hashlib
import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec


class ConfigError(Exception):
    """The configuration file cannot be used; the message names file and option."""


ImportMethod = Literal["glance-direct", "web-download", "copy-image", "glance-download"]


class Default(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    debug: bool = False
    cpu_allocation_ratio: float = 4.0
    ram_allocation_ratio: float = 1.0
    disk_allocation_ratio: float = 1.0
    reserved_host_memory_mb: int = 512
    reserved_host_disk_mb: int = 0
    reserved_host_cpus: int = 0
    dns_domain: str = "openstacklocal"
    dhcp_lease_duration: int = 86400
    global_physnet_mtu: int = 1500
    config_drive_format: Literal["iso9660", "vfat"] = "iso9660"
    force_config_drive: bool = False
    enabled_backends: tuple[str, ...] = ("file:file",)
    enabled_import_methods: tuple[ImportMethod, ...] = ("glance-direct", "web-download", "copy-image", "glance-download")
    image_property_quota: int = 128
    image_tag_quota: int = 128
    image_member_quota: int = 128
    image_size_cap: int = 1 << 40
    image_cache_dir: str | None = "images/cache"
    image_cache_max_size: int = 10 << 30
    limit_param_default: int = 25
    api_limit_max: int = 1000
    do_secure_hash: bool = True
    max_project_tree_depth: int = 5


class Nacre(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options that upstream does not have. `failed_logins_per_minute`: of one user from one address; 0 is any number."""

    host: str = "127.0.0.1"
    port: int = 15000
    http_port: int | None = None
    hypervisor: str = "libvirt"
    fake_hosts: int = 1
    nodes: int = 1
    uplink: Literal["none", "nat"] = "none"
    node_port: int | None = None
    joined: tuple[int, ...] = ()
    classic_ports: bool = False
    failed_logins_per_minute: Annotated[int, msgspec.Meta(ge=0)] = 20


class Libvirt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    virt_type: str = "auto"
    cpu_mode: str | None = None


class Vnc(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`server_listen`: an address of the host at which screens listen, from port 5900; None: each on a unix socket that only the node
    reaches. `server_proxyclient_address`: where the node finds them then, if that is not the same."""

    server_listen: str | None = None
    server_proxyclient_address: str | None = None

    def __post_init__(self) -> None:
        for name in ("server_listen", "server_proxyclient_address"):
            value = getattr(self, name)
            try:
                ipaddress.ip_address(value or "::")
            except ValueError:
                raise ValueError(f"{name} {value!r} is not an IP address") from None

    @property
    def dialled(self) -> str | None:
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return self.server_proxyclient_address or anywhere.get(self.server_listen or "", self.server_listen)


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    vendordata_jsonfile_path: str | None = None
    enable_instance_password: bool = True


class FilterScheduler(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    enabled_filters: tuple[str, ...] = ("ComputeFilter", "ResourcesFilter", "ImagePropertiesFilter")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`allow_expired_window`: seconds for which who may see a token still sees it when it has ended, if asked so."""

    expiration: int = 3600
    allow_rescope_scoped_token: bool = True
    allow_expired_window: int = 172800


class ApplicationCredential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`user_limit`: how many a user may have; -1: any number."""

    user_limit: int = -1


class Trust(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`max_redelegation_count`: how many times a trust may be passed on."""

    max_redelegation_count: int = 3


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of one of several factors. `expiration`: seconds in which the others must follow."""

    expiration: int = 300


class Totp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`included_previous_windows`: half minutes for which a passcode stays good."""

    included_previous_windows: int = 1


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`auth_ttl`: minutes for which a request that was signed by an access key is taken."""

    auth_ttl: int = 15


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    prohibited_implied_role: tuple[str, ...] = ("admin",)


class EndpointFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    return_all_endpoints_if_no_filter: bool = True


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`password_hash_rounds`: powers of two; None is the algorithm's usual number. argon2id has none. `remember_passwords`, which upstream does
    not have: a login that is repeated is not hashed again."""

    password_hash_algorithm: Literal["bcrypt", "scrypt", "argon2id"] = "bcrypt"
    password_hash_rounds: Annotated[int, msgspec.Meta(ge=4, le=31)] | None = None
    scrypt_block_size: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    scrypt_parallelism: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    max_password_length: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 4096
    remember_passwords: bool = True


Positive = Annotated[int, msgspec.Meta(ge=1)]


class SecurityCompliance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of passwords and who logs in with one; None switches off. Durations in days, but `lockout_duration` in seconds."""

    disable_user_account_days_inactive: Positive | None = None
    lockout_failure_attempts: Positive | None = None
    lockout_duration: Positive = 1800
    password_expires_days: Positive | None = None
    unique_last_password_count: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    minimum_password_age: Annotated[int, msgspec.Meta(ge=0)] = 0
    password_regex: str | None = None
    password_regex_description: str = ""
    change_password_upon_first_use: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.password_regex or "")
        except re.error as error:
            raise ValueError(f"password_regex is no regular expression: {error}") from None
        if self.password_expires_days is not None and self.minimum_password_age >= self.password_expires_days:
            raise ValueError("minimum_password_age is not less than password_expires_days: no password could be changed in time")


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`connection`: postgresql://user:password@host/database; None is SQLite in the home."""

    connection: str | None = None

    def __post_init__(self) -> None:
        if self.connection is None:
            return
        url, _, _ = self.connection.partition("?")
        scheme, _, rest = url.partition("://")
        if scheme not in ("postgresql", "postgresql+psycopg") or not rest.partition("/")[2]:
            raise ValueError("connection is not  postgresql://user:password@host/database")  # never the value: it holds a password


class Ml2(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    type_drivers: tuple[str, ...] = ("local", "flat", "vlan", "vxlan", "gre", "geneve")
    tenant_network_types: tuple[str, ...] = ("vxlan",)


class Ml2TypeFlat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    flat_networks: tuple[str, ...] = ("external",)


class Ml2TypeVlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Each `physical network[:first:last]`; without a range only an administrator takes VLANs of it."""

    network_vlan_ranges: tuple[str, ...] = ("external",)


class Ml2TypeVxlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    vni_ranges: tuple[str, ...] = ("1:16777215",)


class Ml2TypeGeneve(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    vni_ranges: tuple[str, ...] = ("1:16777215",)


class Ml2TypeGre(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tunnel_id_ranges: tuple[str, ...] = ("1:16777215",)


class Ovs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Each `physical network:bridge`, on every host."""

    bridge_mappings: tuple[str, ...] = ("external:br-ex",)


class NetworkQuotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    quota_network: int = 100
    quota_subnet: int = 100
    quota_port: int = 500
    quota_router: int = 10
    quota_floatingip: int = 50
    quota_security_group: int = 10
    quota_security_group_rule: int = 100


class GlanceStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`default_backend` None: the first of `enabled_backends`."""

    default_backend: str | None = None


class Backend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One store of `enabled_backends`, in the section of its name. `filesystem_store_datadir`: where a file store keeps its data, below the
    home if it is relative; only the store that is called `file` has a place of its own (`images`)."""

    store_description: str = ""
    weight: int = 0
    filesystem_store_datadir: str | None = None


class ImageCache(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of the images that lie ready on hosts."""

    remove_unused_original_minimum_age_seconds: int = 86400


class RegisteredLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a project may have where nothing else is said, under the names that are registered with identity; -1: any number. Sizes in MiB."""

    image_size_total: int = -1
    image_stage_total: int = -1
    image_count_total: int = -1
    image_count_uploading: int = -1


class ImportFiltering(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where images may be fetched from. A list of what is allowed wins over one of what is not; a host that is allowed by its name or address may
    have an address that is not public."""

    allowed_schemes: tuple[str, ...] = ("http", "https")
    disallowed_schemes: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    disallowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = (80, 443)
    disallowed_ports: tuple[int, ...] = ()


class ImageImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    image_import_plugins: tuple[Literal["no_op", "inject_image_metadata", "image_conversion"], ...] = ()


class InjectMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    ignore_user_roles: tuple[str, ...] = ("admin",)
    inject: dict[str, str] = {}


class ImageConversion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    output_format: Literal["raw", "qcow2", "vmdk"] = "raw"


class GlanceDownload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    extra_properties: tuple[str, ...] = ("hw_", "trait:", "os_distro", "os_secure_boot", "os_type")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    DEFAULT: Default = Default()
    nacre: Nacre = Nacre()
    libvirt: Libvirt = Libvirt()
    vnc: Vnc = Vnc()
    api: Api = Api()
    filter_scheduler: FilterScheduler = FilterScheduler()
    token: Token = Token()
    assignment: Assignment = Assignment()
    endpoint_filter: EndpointFilter = EndpointFilter()
    identity: Identity = Identity()
    security_compliance: SecurityCompliance = SecurityCompliance()
    application_credential: ApplicationCredential = ApplicationCredential()
    trust: Trust = Trust()
    receipt: Receipt = Receipt()
    totp: Totp = Totp()
    credential: Credential = Credential()
    database: Database = Database()
    ml2: Ml2 = Ml2()
    ml2_type_flat: Ml2TypeFlat = Ml2TypeFlat()
    ml2_type_vlan: Ml2TypeVlan = Ml2TypeVlan()
    ml2_type_vxlan: Ml2TypeVxlan = Ml2TypeVxlan()
    ml2_type_geneve: Ml2TypeGeneve = Ml2TypeGeneve()
    ml2_type_gre: Ml2TypeGre = Ml2TypeGre()
    ovs: Ovs = Ovs()
    QUOTAS: NetworkQuotas = NetworkQuotas()
    glance_store: GlanceStore = GlanceStore()
    image_cache: ImageCache = ImageCache()
    registered_limits: RegisteredLimits = RegisteredLimits()
    import_filtering_opts: ImportFiltering = ImportFiltering()
    image_import_opts: ImageImport = ImageImport()
    inject_metadata_properties: InjectMetadata = InjectMetadata()
    image_conversion: ImageConversion = ImageConversion()
    glance_download_properties: GlanceDownload = GlanceDownload()
    stores: dict[str, Backend] = {}

    def __post_init__(self) -> None:
        kinds = self.backends
        if len(kinds) != len(self.DEFAULT.enabled_backends) or not set(kinds.values()) <= {"file", "http"}:
            raise ValueError("enabled_backends is not a list of  name:file  and  name:http, each name once")
        default = self.glance_store.default_backend or next(iter(kinds), "")
        if kinds.get(default) != "file":
            raise ValueError(f"default_backend {default!r} is no file store of enabled_backends")
        for name, kind in kinds.items():
            if kind == "file" and name != "file" and not self.stores.get(name, Backend()).filesystem_store_datadir:
                raise ValueError(f"[{name}] filesystem_store_datadir is missing")

    @property
    def backends(self) -> dict[str, str]:
        """Store -> its type, as `enabled_backends` says."""
        return {name: kind for name, _, kind in (each.partition(":") for each in self.DEFAULT.enabled_backends)}


def load(path: Path) -> Config:
    """The options in `path`, defaults where it is silent or absent. Raises ConfigError."""
    try:
        return msgspec.convert(_gathered(tomllib.loads(path.read_text())), Config) if path.exists() else Config()
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _gathered(read: dict[str, Any]) -> dict[str, Any]:
    """Upstream names a store's section after the store: those that `enabled_backends` names are `stores` here."""
    default = read.get("DEFAULT")
    named = default.get("enabled_backends", ()) if isinstance(default, dict) else ()
    names = [str(each).partition(":")[0] for each in named] if isinstance(named, list) else []
    known = set(Config.__struct_fields__)
    return read | {"stores": {name: read.pop(name) for name in ("file", *names) if name in read and name not in known}}


class Home:
    """The paths of one cloud. `reach` is where its processes see it."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # one folder is one cloud, by whatever way it is named
        self.mark = hashlib.sha256(str(self.path).encode()).hexdigest()[:8]
        self.reach = Path("/run/nacre") / self.mark

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.reach}/db/nacre.db"

    def node_socket(self, host: str) -> Path:
        return self.reach / "run" / "node" / f"{host}.sock"

    def host(self, number: int) -> Path:
        """The folder of sandbox host `number`: its private folders, `instances/`, and `node/` for the agent's own state."""
        return self.reach / "hosts" / str(number)
