"""Serve a folder over HTTP on this machine, well or badly: to try downloads by hand and in tests.

    python tests/serve.py FOLDER --cut 1000000 --times 3
    cpvae fetch lincs-cp5 --base-url http://127.0.0.1:8000

With `--cut`, the first answers break off after that many bytes.
"""

import argparse
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    "Answers GET for files of one folder, with Range."

    def do_GET(self) -> None:
        "Answer as the next line of the server's script says, or well where it has none left."
        server, wanted = self.server, self.headers.get("Range")
        with server.lock:
            server.asked.append((self.path[1:], wanted))
            server.encodings.add(self.headers.get("Accept-Encoding"))
            how = server.script.pop(0) if server.script else {}
        path = server.folder / self.path.rsplit("/", 1)[-1]
        if "status" in how or not path.is_file():
            return self.send_error(how.get("status", 404))
        body = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", wanted or "") if how.get("ranges", True) else None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(body):
            return self.head(
                416,
                {"Content-Range": f"bytes */{len(body)}"} | how.get("headers", {}),
                b"beyond the end",
            )
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if asked else {}
        self.head(
            206 if asked else 200,
            headers | how.get("headers", {}),
            body[start:],
            how.get("length", True),
        )
        sent = body[start:][: how.get("cut")]
        for i in range(0, len(sent), server.block):
            self.wfile.write(sent[i : i + server.block])
            time.sleep(server.pause)
        self.wfile.flush()
        if "stall" in how:
            time.sleep(how["stall"])
            server.sat_out += 1

    def head(self, status: int, headers: dict, body: bytes, length: bool = True) -> None:
        "Send the status line and headers; for 416 the body too."
        self.send_response(status)
        for name, value in (
            {"Content-Length": str(len(body))} if length else {}
        ).items() | headers.items():
            self.send_header(name, value)
        self.end_headers()
        if status == 416:
            self.wfile.write(body)

    def log_message(self, text: str, *values: object) -> None:
        "Say what was asked, if the server talks."
        if self.server.talks:
            print(f"{self.command} {self.path} {self.headers.get('Range', '')}", flush=True)


class Server(ThreadingHTTPServer):
    "A server of one folder on 127.0.0.1 that notes what it was asked, and misbehaves by a script."

    daemon_threads = True

    def __init__(
        self,
        folder: Path,  # files to serve, by name
        port: int = 0,  # 0 for any that is free
        talks: bool = False,  # print each request
    ):
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self.talks, self.lock = Path(folder), talks, threading.Lock()
        self.block, self.pause = 2**20, 0.0  # bytes at a time, and seconds after them
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request
        self.encodings: set[str | None] = set()  # every Accept-Encoding that came
        self.sat_out = 0  # stalls that came to their end
        # How to answer the next requests: `cut` after so many bytes, `status` instead of a file,
        # `ranges` False to ignore
        # Range, `length` False to keep quiet about it, `stall` for seconds at the end, `headers` to
        # add or replace.
        self.script: list[dict] = []

    @property
    def url(self) -> str:
        "Where it listens."
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    "A server that runs in a thread, for as long as the block lasts."
    server = Server(folder)
    threading.Thread(
        target=server.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True
    ).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    "Serve until interrupted."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder whose files are served")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--cut", type=int, help="bytes after which an answer breaks off")
    parser.add_argument("--times", type=int, default=3, help="how many answers break off")
    chosen = parser.parse_args()
    server = Server(chosen.folder, chosen.port, talks=True)
    if chosen.cut is not None:
        server.script = [{"cut": chosen.cut} for _ in range(chosen.times)]
    print(f"{server.url}: {chosen.folder}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
