"""What `up` writes in a home."""

import subprocess
from pathlib import Path

import pytest

from nacre.cli import credentials, layout, supervisor
from nacre.cli.trouble import Trouble
from nacre.core.config import Config, Home, Nacre, load


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "\n[nacre]\nport = 7\n"),
        ("[nacre]\n", "[nacre]\nport = 7\n"),
        ("[nacre]\nport = 15000  # ours\n[token]\nport = 1\n", "[nacre]\nport = 7\n[token]\nport = 1\n"),
        ("[DEFAULT]\nport = 1\n\n [ nacre ]\nhost = 'x'\n", "[DEFAULT]\nport = 1\n\n [ nacre ]\nport = 7\nhost = 'x'\n"),
        ("[nacre]\n# port = 3\nhttp_port = 4\n", "[nacre]\nport = 7\n# port = 3\nhttp_port = 4\n"),
    ],
)
def test_an_option_is_set_and_the_rest_stays(text: str, expected: str) -> None:
    assert layout.with_option(text, "nacre", "port", "7") == expected


def test_the_first_file_loads_and_takes_options(tmp_path: Path) -> None:
    toml = tmp_path / "nacre.toml"
    toml.write_text(layout._OPTIONS)
    assert load(toml) == Config(nacre=Nacre(port=15000, hypervisor="libvirt"))
    layout.set_options(toml, "nacre", {"port": 16000, "hypervisor": "fake", "fake_hosts": 3})
    assert load(toml).nacre == Nacre(port=16000, hypervisor="fake", fake_hosts=3)
    assert "# cpu_allocation_ratio = 4.0" in toml.read_text()
    assert toml.stat().st_mode & 0o777 == 0o600, "it may hold the database's password"


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(Trouble, match="not a Nacre home"):
        layout.make(Home(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def source(home: Path, *files: str, show: str) -> str:
    script = "OS_TOKEN=old OS_CLOUD=x OS_PROJECT_ID=y; export OS_TOKEN OS_CLOUD OS_PROJECT_ID\n"
    script += "".join(f". {home}/{file}\n" for file in files) + show
    return subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}).stdout


def test_sourcing_never_mixes(tmp_path: Path) -> None:
    home, clients = Home(tmp_path), Path("/opt/nacre/clients-1/bin")
    passwords = credentials.write(home, Config(), [clients])
    shown = source(tmp_path, "keystonerc_admin", "keystonerc_demo", "keystonerc_demo", show="env | grep ^OS_ | sort; echo $PATH")
    facts = dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("OS_"))
    assert (facts["OS_USERNAME"], facts["OS_PROJECT_NAME"], facts["OS_PASSWORD"]) == ("demo", "demo", passwords["demo"])
    assert not {"OS_TOKEN", "OS_CLOUD", "OS_PROJECT_ID"} & facts.keys()
    assert facts["OS_AUTH_URL"] == "https://127.0.0.1:15000/identity/v3" and facts["OS_CACERT"] == str(tmp_path / "ca.pem")
    assert shown.splitlines()[-1] == f"{clients}:/usr/bin:/bin"


def test_passwords_stay_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = credentials.write(home, Config(), [Path("/a")])
    assert credentials.write(home, Config(nacre=Nacre(port=16000)), [Path("/b")]) == first
    assert first["admin"] != first["demo"] and len(first["admin"]) >= 20
    for name in ("keystonerc_admin", "keystonerc_demo", "clouds.yaml"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        assert ":16000/" in (tmp_path / name).read_text()


def test_the_clients_read_clouds_yaml(tmp_path: Path) -> None:
    import openstack.config

    passwords = credentials.write(Home(tmp_path), Config(), [Path("/a")])
    loader = openstack.config.OpenStackConfig(config_files=[str(tmp_path / "clouds.yaml")], load_envvars=False)
    assert sorted(loader.get_cloud_names()) == ["nacre", "nacre-demo"]
    cloud = loader.get_one("nacre-demo")
    assert cloud.config["auth"]["password"] == passwords["demo"] and cloud.config["cacert"] == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("ran", "last", "pause"), [(1.0, 0.0, 0.0), (3600.0, 5.0, 0.0), (0.2, 0.0, 0.5), (0.2, 0.5, 1.0), (0.2, 4.0, 5.0), (0.99, 5.0, 5.0)]
)
def test_pauses(ran: float, last: float, pause: float) -> None:
    assert supervisor.pause_before_restart(ran, last) == pause
