"""An HTTP service as many are: threads, HTTP/1.1, an answer that is put together for each request.

Refuses: anything but GET. Its one argument is the port on loopback.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDERS = [{"id": i, "article": f"article-{i % 97}", "count": i % 7 + 1, "cents": 100 + i} for i in range(40)]


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Head and body leave together.
    wbufsize = 64 * 1024

    def do_GET(self):
        cents = sum(order["count"] * order["cents"] for order in ORDERS)
        body = json.dumps({"orders": ORDERS, "cents": cents}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
