"""A cloud with two file stores and one of addresses, and a web server beside it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import Running, started
from nacre.core.config import Backend, Config, Default, ImageImport, ImportFiltering, InjectMetadata


@dataclass
class Web:
    """`pages`: path -> content, or (status, headers); `asked`: what was asked for, with the headers."""

    port: int = 0
    pages: dict[str, bytes | tuple[int, dict[str, str]]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture(scope="package")
def web() -> Iterator[Web]:
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            page = found.pages.get(self.path, (404, {}))
            status, headers = (200, {"Content-Length": str(len(page))}) if isinstance(page, bytes) else page
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if isinstance(page, bytes):
                self.wfile.write(page)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def options(web: Web) -> Config:
    return Config(
        DEFAULT=Default(enabled_backends=("file:file", "second:file", "web:http")),
        stores={"second": Backend(filesystem_store_datadir="second", store_description="Another one", weight=1)},
        import_filtering_opts=ImportFiltering(allowed_hosts=("127.0.0.1",), allowed_ports=(), disallowed_ports=(1,)),
        image_import_opts=ImageImport(image_import_plugins=("inject_image_metadata",)),
        inject_metadata_properties=InjectMetadata(inject={"via": "import"}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str], web: Web) -> Iterator[Running]:
    with started(tmp_path_factory.mktemp("several") / "cloud", options(web), fresh_database()) as found:
        yield found
