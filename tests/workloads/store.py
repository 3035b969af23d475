"""A service with a thread for each connection that asks PostgreSQL and Redis by their own bytes. `store.py PORT POSTGRES_PORT REDIS_PORT`

All calls block: what a request causes is done by the thread that received it, before the answer.
"""
import http.server
import socket
import struct
import sys
import threading

port, postgres_port, redis_port = (int(word) for word in sys.argv[1:4])
local = threading.local()


def connect(to):
    return socket.create_connection(("127.0.0.1", to))


def read_until_ready(stream):
    """Reads PostgreSQL's messages up to ReadyForQuery."""
    held = b""
    while True:
        held += stream.recv(4096)
        while len(held) >= 5:
            length = 1 + struct.unpack("!i", held[1:5])[0]
            if len(held) < length:
                break
            kind, held = held[:1], held[length:]
            if kind == b"Z":
                return


def ask_postgres(statement):
    if not hasattr(local, "postgres"):
        local.postgres = connect(postgres_port)
        words = b"user\0postgres\0database\0postgres\0\0"
        local.postgres.sendall(struct.pack("!ii", 8 + len(words), 196608) + words)
        read_until_ready(local.postgres)
    local.postgres.sendall(b"Q" + struct.pack("!i", 5 + len(statement)) + statement + b"\0")
    read_until_ready(local.postgres)


def ask_redis(*words):
    if not hasattr(local, "redis"):
        local.redis = connect(redis_port)
    local.redis.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    local.redis.recv(4096)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one write, as servers do.
    wbufsize = -1

    def do_GET(self):
        number = self.path.rsplit("/", 1)[-1].encode()
        ask_postgres(b"select note from shelf where id = " + number)
        ask_redis(b"SET", b"secret-key", b"secret-value")
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server(("127.0.0.1", port), Handler).serve_forever()
