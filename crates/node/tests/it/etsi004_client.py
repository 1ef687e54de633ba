"""A client of ETSI GS QKD 004 in the dialect with fixed fields, over one connection; standard library only.

usage: etsi004_client.py HOST:PORT FOLDER SOURCE DESTINATION KSID FIRST COUNT
FOLDER has ca.pem, cert.pem and key.pem. Prints one chunk a line as hexadecimal text.
"""

import json
import socket
import ssl
import struct
import sys
import uuid

VERSION = bytes([1, 0, 1])
MIMETYPE_BYTES = 256
OPEN, GET, CLOSE = 2, 4, 8
SUCCESS, INSUFFICIENT, TIMEOUT, TOO_SMALL = 0, 2, 6, 8


class Connection:
    def __init__(self, address, folder):
        host, port = address.rsplit(":", 1)
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        self.socket = context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host)

    def exactly(self, count):
        out = b""
        while len(out) < count:
            part = self.socket.recv(count - len(out))
            assert part, "the server closed the connection"
            out += part
        return out

    def call(self, service, payload):
        self.socket.sendall(VERSION + bytes([service]) + struct.pack("!I", len(payload)) + payload)
        header = self.exactly(8)
        assert header[:3] == VERSION, "the version is echoed"
        assert header[3] == service + 1, f"service {header[3]}"
        answer = self.exactly(struct.unpack("!I", header[4:])[0])
        return struct.unpack("!I", answer[:4])[0], answer[4:]


def open_connect(connection, source, destination, ksid):
    qos = struct.pack("!7I", 99, 0, 0, 0, 0, 0, 0) + b"text/none".ljust(MIMETYPE_BYTES, b"\0")
    payload = source.encode() + b"\0" + destination.encode() + b"\0" + qos + ksid
    status, rest = connection.call(OPEN, payload)
    assert status == SUCCESS, f"OPEN_CONNECT: status {status}"
    assert len(rest) == 28 + MIMETYPE_BYTES + 16, "fixed fields"
    numbers = struct.unpack("!7I", rest[:28])
    mimetype = rest[28 : 28 + MIMETYPE_BYTES].rstrip(b"\0").decode()
    assert mimetype == "application/json", "the first opener's QoS counts"
    return numbers[0], rest[-16:]


def get_key(connection, ksid, index, size):
    return connection.call(GET, ksid + struct.pack("!II", index, size))


def chunk_of(answer, index, size):
    found, length = struct.unpack("!II", answer[:8])
    assert (found, length) == (index, size), (found, length)
    key, rest = answer[8 : 8 + length], answer[8 + length :]
    assert struct.unpack("!I", rest[:4])[0] == len(rest) - 4
    return key, rest[4:]


def main():
    address, folder, source, destination, ksid, first, count = sys.argv[1:]
    connection = Connection(address, folder)
    size, ksid = open_connect(connection, source, destination, uuid.UUID(ksid).bytes)
    for index in range(int(first), int(first) + int(count)):
        if index % 100 == 0:
            status, rest = get_key(connection, ksid, index, 3)
            while status in (INSUFFICIENT, TIMEOUT):
                status, rest = get_key(connection, ksid, index, 3)
            assert (status, len(rest)) == (TOO_SMALL, 4), "too small a buffer is told the size and costs no key"
            buffer = struct.unpack("!I", rest)[0]
        else:
            buffer = 1024
        status, rest = get_key(connection, ksid, index, buffer)
        while status in (INSUFFICIENT, TIMEOUT):
            status, rest = get_key(connection, ksid, index, buffer)
        assert status == SUCCESS, f"GET_KEY {index}: status {status}"
        key, metadata = chunk_of(rest, index, size)
        facts = json.loads(metadata)
        assert facts["hops"] == 1 and len(facts["qurrent_path"]) == 3 and facts["age"] >= 0, facts
        print(key.hex())
    assert get_key(connection, ksid, int(first), 0)[0] == INSUFFICIENT, "a chunk comes once"
    status, rest = connection.call(CLOSE, ksid)
    assert (status, rest) == (SUCCESS, b""), f"CLOSE: status {status}"


main()
