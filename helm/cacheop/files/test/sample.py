"""`helm test`: a web server whose files are computed, and the check that they are read right.

`python sample.py serve PORT`: HTTP with ranges and ETags, as object stores have them.
`python sample.py check DIRECTORY`: exit code 0 if every file is there, whole and right.
"""

import hashlib
import http.server
import os
import re
import sys

SIZES = {"empty.bin": 0, "small.bin": 100_000, "deep/down/some.bin": 12_345, "large.bin": 9 << 20}


def content(name: str) -> bytes:
    """Bytes that nobody guesses by chance."""
    return hashlib.shake_256(name.encode()).digest(SIZES[name])


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of the files, and of an index page that links to all of them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if not name:
            page = "".join(f'<a href="/{name}">{name}</a>\n' for name in SIZES)
            self.answer(200, page.encode(), {"Content-Type": "text/html"})
        elif name not in SIZES:
            self.answer(404, b"no such file\n")
        else:
            self.answer_file(content(name))

    do_HEAD = do_GET

    def answer_file(self, body: bytes) -> None:
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        headers["Last-Modified"] = "Thu, 01 Jan 2026 00:00:00 GMT"
        if self.headers.get("If-Match", etag) not in (etag, "*"):
            self.answer(412, b"", headers)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.answer(200, body, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
        if first > last:
            self.answer(416, b"", headers | {"Content-Range": f"bytes */{len(body)}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        self.answer(206, body[first : last + 1], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def check(directory: str) -> int:
    """What is wrong, on stderr; how many things that are."""
    found = {
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, _, names in os.walk(directory)
        for name in names
    }
    wrong = [f"{name} should not be there" for name in sorted(found - SIZES.keys())]
    for name, size in SIZES.items():
        try:
            with open(os.path.join(directory, name), "rb") as file:
                body = file.read()
        except OSError as error:
            wrong.append(f"{name}: {error.strerror}")
            continue
        if body != content(name):
            wrong.append(f"{name}: {len(body)} bytes, not the {size} that the origin has")
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(SIZES)} files, {sum(SIZES.values())} bytes, all right")
    return len(wrong)


if __name__ == "__main__":
    verb, argument = sys.argv[1:]
    if verb == "check":
        sys.exit(min(check(argument), 1))
    http.server.ThreadingHTTPServer(("", int(argument)), Handler).serve_forever()
