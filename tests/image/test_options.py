"""The stores of a cloud, as its operator writes them in nacre.toml."""

from pathlib import Path

import pytest

from nacre.core import config


def test_each_store_has_a_section_of_its_name(tmp_path: Path) -> None:
    toml = tmp_path / "nacre.toml"
    toml.write_text("""
[DEFAULT]
enabled_backends = ["fast:file", "far:http"]
[glance_store]
default_backend = "fast"
[fast]
filesystem_store_datadir = "fast"
weight = 3
[import_filtering_opts]
allowed_hosts = ["mirror.example"]
""")
    read = config.load(toml)
    assert (read.backends, read.stores["fast"].weight) == ({"fast": "file", "far": "http"}, 3)


@pytest.mark.parametrize(("text", "said"), [
    ('[DEFAULT]\nenabled_backends = ["a:file"]\n', "[a] filesystem_store_datadir is missing"),
    ('[DEFAULT]\nenabled_backends = ["file:file", "file:http"]\n', "each name once"),
    ('[DEFAULT]\nenabled_backends = ["x:s3"]\n', "enabled_backends"),
    ('[DEFAULT]\nenabled_backends = ["web:http"]\n', "default_backend"), ('[glance_store]\ndefault_backend = "b"\n', "default_backend 'b'"),
    ('[b]\nweight = 1\n', "unknown field `b`"), ('[DEFAULT]\nenabled_backends = ["libvirt:file"]\n', "filesystem_store_datadir"),
    ('[file]\ncolour = 1\n', "colour"), ("DEFAULT = 1\n", "DEFAULT"), ('[DEFAULT]\nenabled_import_methods = ["magic"]\n', "magic"),
])  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    toml = tmp_path / "nacre.toml"
    toml.write_text(text)
    with pytest.raises(config.ConfigError) as refused:
        config.load(toml)
    assert said in str(refused.value)
