"""A service with one thread that spends its time in a way that the path names, 60 ms each but `/disk`. `times.py PORT [FILE]`"""
import ctypes
import http.server
import os
import socket
import sys
import threading
import time

SECONDS = 0.06


def burn():
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        pass


def wait_for_lock():
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(SECONDS, lock.release).start()
    lock.acquire()


def wait_for_network():
    one, other = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    threading.Timer(SECONDS, server.sendall, [b"x"]).start()
    client.recv(1)
    for each in (one, other, listener, client, server):
        each.close()


def write_to_disk():
    with open(sys.argv[2] if len(sys.argv) > 2 else "/dev/null", "wb") as file:
        for _ in range(16):
            file.write(os.urandom(1 << 20))
            file.flush()
        os.fsync(file.fileno())


def crash():
    ctypes.string_at(0)


WAYS = {"/cpu": burn, "/sleep": lambda: time.sleep(SECONDS), "/lock": wait_for_lock, "/network": wait_for_network, "/disk": write_to_disk, "/crash": crash}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        WAYS[self.path]()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
