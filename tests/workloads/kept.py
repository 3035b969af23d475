"""A server that keeps connections, and a client with one that it keeps and one for each further request.

usage: kept.py serve ADDRESS PORT | kept.py call ADDRESS PORT
"""
import http.client
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROLE, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


class Server(ThreadingHTTPServer):
    def server_bind(self):
        # The usual one asks the DNS for its own name, which is not there.
        socketserver.TCPServer.server_bind(self)


def ask(connection, path):
    connection.request("GET", path)
    connection.getresponse().read()


def call():
    kept = http.client.HTTPConnection(ADDRESS, PORT)
    while True:
        ask(kept, "/kept")
        new = http.client.HTTPConnection(ADDRESS, PORT)
        ask(new, "/new")
        new.close()
        time.sleep(0.1)


if ROLE == "call":
    call()
Server((ADDRESS, PORT), Handler).serve_forever()
