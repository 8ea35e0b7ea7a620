"""A WebSocket client that says whatever a test wants, and a few plain TCP helpers."""

import base64
import hashlib
import os
import socket
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
SECONDS_MAX = 10


def connect(port):
    """A TCP connection in which no read waits for ever."""
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX)


def read_exactly(stream, count):
    """`count` bytes; EOFError when the peer ends before."""
    data = bytearray()
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise EOFError(f"the connection ended after {len(data)} of {count} bytes")
        data += part
    return bytes(data)


def read_until(stream, mark, bytes_max=65536):
    """Bytes up to and with `mark`."""
    data = bytearray()
    while not data.endswith(mark):
        if len(data) >= bytes_max:
            raise ValueError(f"no {mark!r} in {bytes_max} bytes")
        data += read_exactly(stream, 1)
    return bytes(data)


def read_to_end(stream):
    """All that still comes; a reset ends it too."""
    data = bytearray()
    try:
        while part := stream.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return bytes(data)


def handshake(port, path="/echo", **fields):
    """The fields of a good opening handshake, with some of them changed, or left out by None."""
    good = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    good |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"GET {path} HTTP/1.1"] + [f"{name}: {value}" for name, value in good.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), good


def request(port, data):
    """Sends `data` and reads a response's head: (status, fields in lower case, the connection)."""
    stream = connect(port)
    stream.sendall(data)
    status, fields = read_head(stream)
    return status, fields, stream


def read_head(stream):
    head = read_until(stream, b"\r\n\r\n").decode("latin-1").split("\r\n")
    fields = dict(line.split(":", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), {name.lower(): value.strip() for name, value in fields.items()}


def frame(opcode, payload=b"", fin=True, rsv=0, mask=b"\x11\x22\x33\x44"):
    """A client's frame; without a mask when `mask` is None."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, masked | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, masked | 127, len(payload))
    if not mask:
        return head + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    body = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + mask + body.to_bytes(len(payload), "big")


def close_payload(code, reason=""):
    return struct.pack("!H", code) + reason.encode()


class WebSocket:
    """An open WebSocket that answers nothing by itself, pings included."""

    def __init__(self, port, path="/echo", **fields):
        data, sent = handshake(port, path, **fields)
        status, self.fields, self.stream = request(port, data)
        if status != 101:
            self.stream.close()
            raise AssertionError(f"status {status} instead of 101")
        digest = hashlib.sha1((sent["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert self.fields["sec-websocket-accept"] == base64.b64encode(digest).decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def send(self, *frames):
        self.stream.sendall(b"".join(frames))

    def receive(self):
        """The next frame: (opcode, payload, fin). The server must not mask."""
        first, second = read_exactly(self.stream, 2)
        assert not second & 0x80, "a server's frame with a mask"
        assert not first & 0x70, "reserved bits without an extension"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", read_exactly(self.stream, 2))
        elif length == 127:
            (length,) = struct.unpack("!Q", read_exactly(self.stream, 8))
        return first & 0x0F, read_exactly(self.stream, length), bool(first & 0x80)

    def expect_close(self):
        """The code of the close frame that comes next, with pings before it passed over; 1005 when it has none."""
        while True:
            opcode, payload, _ = self.receive()
            if opcode == CLOSE:
                return struct.unpack("!H", payload[:2])[0] if payload else 1005
            assert opcode == PING, f"a frame with opcode {opcode} instead of a close"

    def expect_end(self):
        """The connection ends, with nothing more said."""
        rest = read_to_end(self.stream)
        assert rest == b"", f"{len(rest)} bytes after the close frame"
