"""A DNS server that knows no name, and a client that asks it again and again over one connected UDP socket.

usage: resolver.py serve ADDRESS PORT | resolver.py call ADDRESS PORT
"""
import socket
import struct
import sys
import time

ROLE, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
NAME = b"\x04shop\x04test\x00"
NO_SUCH_NAME = 0x8183

line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if ROLE == "serve":
    line.bind((ADDRESS, PORT))
    while True:
        question, asker = line.recvfrom(512)
        line.sendto(question[:2] + struct.pack(">H", NO_SUCH_NAME) + question[4:], asker)

line.settimeout(1)
line.connect((ADDRESS, PORT))
number = 0
while True:
    number += 1
    line.send(struct.pack(">6H", number & 0xffff, 0x0100, 1, 0, 0, 0) + NAME + struct.pack(">2H", 1, 1))
    try:
        line.recv(512)
    except OSError:
        pass
    time.sleep(0.1)
