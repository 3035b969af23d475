"""A service with a thread for each connection. `shop.py PORT [NEXT_PORT]`: asks the next service, then answers; `/burn/N` takes
100 ms of processor time.

All calls block: what a request causes is done by the thread that received it, before the answer.
"""
import http.client
import http.server
import sys
import threading
import time

port = int(sys.argv[1])
next_port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
local = threading.local()


def ask_next(path):
    if not hasattr(local, "next"):
        local.next = http.client.HTTPConnection("127.0.0.1", next_port)
    local.next.request("GET", path)
    response = local.next.getresponse()
    response.read()
    return response.status


def burn():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one write, as servers do.
    wbufsize = -1

    def do_GET(self):
        status = 500 if self.path.startswith("/fail") else 200
        if self.path.startswith("/burn/"):
            burn()
        if next_port:
            status = max(status, ask_next(self.path))
        body = b"done"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server(("127.0.0.1", port), Handler).serve_forever()
