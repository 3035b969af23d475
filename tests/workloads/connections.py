"""Connections that end in every way. `connections.py server` prints its port and does what the first byte of each says;
`connections.py client PORT` lets them, the last after SIGUSR1; `connections.py unanswered`, in a namespace of its own, asks who is not there.
"""
import errno
import signal
import socket
import struct
import sys
import time

BYTES = 4096


def reset(connection):
    """Closes with a reset instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def serve():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        word = connection.recv(1)
        if word == b"s":
            connection.close()
        elif word == b"r":
            reset(connection)
        elif word == b"b":
            left = BYTES - 1
            while left:
                left -= len(connection.recv(left))
            connection.sendall(b"y" * BYTES)
            connection.recv(1)
            connection.close()
        else:
            # The client closes, or has done so without a word.
            if word:
                try:
                    connection.recv(1)
                except ConnectionResetError:
                    pass
            connection.close()
        if word == b"q":
            return


def call(port):
    def connect(word):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(word)
        return connection

    for _ in range(3):
        connect(b"c").close()
    for _ in range(2):
        connection = connect(b"s")
        assert connection.recv(1) == b""
        connection.close()
    connection = connect(b"r")
    try:
        connection.recv(1)
        raise AssertionError("it was not reset")
    except ConnectionResetError:
        connection.close()
    for _ in range(2):
        connection = connect(b"x")
        time.sleep(0.1)
        reset(connection)
    # Nothing is said over this one.
    socket.create_connection(("127.0.0.1", port)).close()
    connection = connect(b"b" + b"x" * (BYTES - 1))
    left = BYTES
    while left:
        left -= len(connection.recv(left))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    print("moved", flush=True)
    signal.sigwait([signal.SIGUSR1])
    connection.close()
    listener = socket.create_server(("127.0.0.1", 0))
    free = listener.getsockname()
    listener.close()
    for _ in range(4):
        assert socket.socket().connect_ex(free) == errno.ECONNREFUSED
    connect(b"q").close()


def ask_nobody():
    # The way to the first swallows packets, that to the second says that there is none.
    nobody = [("192.0.2.9", 1, errno.ETIMEDOUT), ("198.51.100.9", 4, errno.EHOSTUNREACH)]
    for address, repeats, expected in nobody:
        connection = socket.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, repeats)
        assert connection.connect_ex((address, 80)) == expected, address


if sys.argv[1] == "server":
    serve()
elif sys.argv[1] == "client":
    call(int(sys.argv[2]))
else:
    ask_nobody()
