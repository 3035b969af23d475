"""Many connections at one time. `crowd.py PAIRS EACH` starts pairs of processes, for one may not have that many descriptors; in each a
client opens so many connections to its server, asks once over every one, and closes them when all are open. Prints how many were
answered.
"""
import os
import selectors
import socket
import sys

REQUEST = b"GET /item/1 HTTP/1.1\r\nHost: crowd\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"


def serve(listener):
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ)
            elif key.fileobj.recv(4096):
                key.fileobj.sendall(ANSWER)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def call(address, source, count):
    connections = []
    for _ in range(count):
        connection = socket.create_connection(address, source_address=(source, 0))
        connection.sendall(REQUEST)
        assert connection.recv(4096) == ANSWER
        connections.append(connection)
    return connections


def main():
    pairs, each = int(sys.argv[1]), int(sys.argv[2])
    servers, clients = [], []
    for pair in range(pairs):
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        (told, tell), (stay, leave) = os.pipe(), os.pipe()
        server = os.fork()
        if server == 0:
            for _, _, other in [*clients, (0, 0, leave)]:
                os.close(other)
            serve(listener)
        client = os.fork()
        if client == 0:
            for _, _, other in [*clients, (0, 0, leave)]:
                os.close(other)
            connections = call(listener.getsockname(), f"127.0.1.{1 + pair}", each)
            os.write(tell, b"%d" % len(connections))
            # The end of this is the word to go.
            os.read(stay, 1)
            os._exit(0)
        listener.close()
        os.close(tell)
        os.close(stay)
        servers.append(server)
        clients.append((client, told, leave))
    answered = sum(int(os.read(told, 16)) for _, told, _ in clients)
    print(answered, flush=True)
    sys.stdin.read()
    for client, _, leave in clients:
        os.close(leave)
    for client, _, _ in clients:
        os.waitpid(client, 0)
    for server in servers:
        os.kill(server, 9)
        os.waitpid(server, 0)


main()
