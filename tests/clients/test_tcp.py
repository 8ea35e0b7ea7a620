"""Raw TCP with nc and plain sockets, alone and beside WebSockets in one topic."""

import subprocess
import time
import unittest

import raw
from raw import BINARY, TEXT, WebSocket, frame
from server import LENGTH_ECHO, LENGTH_TOPIC, LINE_ANY_TOPIC, LINE_CHAT, LINE_ECHO, LINE_TOPIC, Server


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server())


def length_frame(payload):
    return len(payload).to_bytes(4, "big") + payload


class Netcat:
    """`nc` as its users run it, on a listener's port."""

    def __init__(self, listener, *flags):
        self.process = subprocess.Popen(
            ["nc.openbsd", *flags, "127.0.0.1", str(server.ports[listener])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def say(self, data):
        self.process.stdin.write(data)

    def expect(self, data):
        got = b""
        while len(got) < len(data):
            part = self.process.stdout.read(len(data) - len(got))
            assert part, f"nc ended after {got!r}"
            got += part
        assert got == data, f"{got!r} instead of {data!r}"


class Line(unittest.TestCase):
    def test_nc_echo(self):
        with Netcat(LINE_ECHO) as nc:
            for line in [b"hello\n", "grüße\n".encode(), b"x" * 5000 + b"\n"]:
                nc.say(line)
                nc.expect(line)

    def test_nc_one_shot(self):
        port = str(server.ports[LINE_ECHO])
        done = subprocess.run(
            ["nc.openbsd", "-N", "-w", "5", "127.0.0.1", port], input=b"one\ntwo\n", capture_output=True, timeout=10, check=False
        )
        self.assertEqual(done.stdout, b"one\ntwo\n")

    def test_a_carriage_return_is_dropped_at_the_end_and_a_space_inside(self):
        with raw.connect(server.ports[LINE_ECHO]) as stream:
            stream.sendall(b"hello\r\nwor\rld\n")
            self.assertEqual(raw.read_exactly(stream, 13), b"hello\nwor ld\n")

    def test_lines_cut_anywhere(self):
        with raw.connect(server.ports[LINE_ECHO]) as stream:
            for byte in b"one\ntwo\nthree\n":
                stream.sendall(bytes([byte]))
                time.sleep(0.002)
            self.assertEqual(raw.read_exactly(stream, 14), b"one\ntwo\nthree\n")

    def test_empty_lines_are_not_echoed(self):
        with raw.connect(server.ports[LINE_ECHO]) as stream:
            stream.sendall(b"\n\r\n\nafter\n")
            self.assertEqual(raw.read_exactly(stream, 6), b"after\n")

    def test_chat_over_tcp_and_websocket(self):
        with WebSocket(server.http_port, "/chat/lobby?name=ann") as ann:
            self.assertEqual(ann.receive(), (TEXT, b"ann joined the chat", True))
            with Netcat(LINE_CHAT) as nc:
                nc.say(b"bob\n")
                self.assertEqual(ann.receive(), (TEXT, b"bob joined the chat", True))
                nc.expect(b"bob joined the chat\n")
                nc.say(b"hi from nc\n")
                self.assertEqual(ann.receive(), (TEXT, b"bob: hi from nc", True))
                nc.expect(b"bob: hi from nc\n")
                ann.send(frame(TEXT, b"hi"))
                self.assertEqual(ann.receive(), (TEXT, b"ann: hi", True))
                nc.expect(b"ann: hi\n")
            self.assertEqual(ann.receive(), (TEXT, b"bob left the chat", True))


    def test_without_a_bound_topic_the_first_line_names_it(self):
        with raw.connect(server.ports[LINE_ANY_TOPIC]) as stream:
            stream.sendall(b"room\nhello room\n")
            self.assertEqual(raw.read_exactly(stream, 11), b"hello room\n")
            with WebSocket(server.http_port, "/topics/room") as ws:
                ws.send(frame(TEXT, b"hello line"))
                self.assertEqual(raw.read_exactly(stream, 11), b"hello line\n")


class Length(unittest.TestCase):
    def test_echo(self):
        with raw.connect(server.ports[LENGTH_ECHO]) as stream:
            for payload in [b"x", b"with\nnewlines\r\n", bytes(range(256)), bytes(100_000)]:
                stream.sendall(length_frame(payload))
                self.assertEqual(raw.read_exactly(stream, 4 + len(payload)), length_frame(payload))

    def test_frames_cut_anywhere(self):
        with raw.connect(server.ports[LENGTH_ECHO]) as stream:
            data = length_frame(b"one") + length_frame(b"two") + length_frame(b"three")
            for byte in data:
                stream.sendall(bytes([byte]))
                time.sleep(0.002)
            self.assertEqual(raw.read_exactly(stream, len(data)), data)

    def test_empty_frames_are_not_echoed(self):
        with raw.connect(server.ports[LENGTH_ECHO]) as stream:
            stream.sendall(bytes(4) + length_frame(b"after"))
            self.assertEqual(raw.read_exactly(stream, 9), length_frame(b"after"))


class OneTopic(unittest.TestCase):
    """A WebSocket, a line and a length client in the topic `room`."""

    def setUp(self):
        self.ws = self.enterContext(WebSocket(server.http_port, "/topics/room"))
        self.line = self.enterContext(raw.connect(server.ports[LINE_TOPIC]))
        self.length = self.enterContext(raw.connect(server.ports[LENGTH_TOPIC]))
        self.become_members()

    def become_members(self):
        """A raw client is in the topic once its own message comes back to it; then all forget what came before."""
        self.line.sendall(b"line is here\n")
        self.skip_to(self.read_line, b"line is here")
        self.length.sendall(length_frame(b"length is here"))
        for read in [self.read_length, self.read_line, lambda: self.ws.receive()[1]]:
            self.skip_to(read, b"length is here")

    @staticmethod
    def skip_to(read, mark):
        while read() != mark:
            pass

    def read_line(self):
        return raw.read_until(self.line, b"\n")[:-1]

    def read_length(self):
        count = int.from_bytes(raw.read_exactly(self.length, 4), "big")
        return raw.read_exactly(self.length, count)

    def expect(self, payload):
        self.assertEqual(self.ws.receive()[1:], (payload, True))
        self.assertEqual(self.read_line(), payload)
        self.assertEqual(self.read_length(), payload)

    def test_everyone_hears_everyone(self):
        self.ws.send(frame(TEXT, "grüße from ws".encode()))
        self.expect("grüße from ws".encode())
        self.line.sendall(b"from line\n")
        self.expect(b"from line")
        self.length.sendall(length_frame(b"from length"))
        self.expect(b"from length")

    def test_binary(self):
        data = bytes(byte for byte in range(256) if byte not in b"\r\n") * 10
        self.ws.send(frame(BINARY, data))
        self.expect(data)
        self.length.sendall(length_frame(data))
        self.expect(data)

    def test_a_line_break_in_a_message_does_not_break_the_line_framing(self):
        self.ws.send(frame(TEXT, b"two\nlines"), frame(TEXT, b"next"))
        self.assertEqual(self.ws.receive()[1], b"two\nlines")
        self.assertEqual(self.read_length(), b"two\nlines")
        one_line = self.read_line()
        self.assertTrue(one_line.startswith(b"two") and one_line.endswith(b"lines"), one_line)
        self.expect(b"next")


if __name__ == "__main__":
    unittest.main()
