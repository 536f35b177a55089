"""A web server of a folder that counts bytes: ``range_server.py FOLDER LOG [no-ranges]``.

A process of its own: GDAL waits for it while rasterio holds Python's lock.
"""

import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder, log, ranges = Path(sys.argv[1]), Path(sys.argv[2]), len(sys.argv) < 4


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = folder / self.path.split('?')[0].lstrip('/')
        content, status, part = b'', 404, ''
        if path.is_file():
            content, status = path.read_bytes(), 200
            wanted = re.match(r'bytes=(\d+)-(\d+)', self.headers.get('Range', ''))
            if wanted and ranges:
                first, last = map(int, wanted.groups())
                last = min(last, len(content) - 1)
                part, status = f'bytes {first}-{last}/{len(content)}', 206
                content = content[first:last + 1]
        self.send_response(status)
        self.send_header('Content-Length', str(len(content)))
        if part:
            self.send_header('Content-Range', part)
        self.end_headers()
        sent = len(content) if self.command == 'GET' else 0
        with log.open('a') as file:
            file.write(f'{sent}\n')
        if sent:
            try:
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

    def log_message(self, *args) -> None:
        pass


server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
