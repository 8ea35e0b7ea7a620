"""What a peer does wrong, and how the server ends it: broken handshakes, bad frames, silence."""

import select
import time
import unittest

import raw
from raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WebSocket, frame
from server import HTTP, LENGTH_ECHO, LINE_ECHO, Server


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server(HOLDLINE_LIMITS_HANDSHAKE_TIMEOUT="1s"))


def status_of(data):
    status, _, stream = raw.request(server.http_port, data)
    stream.close()
    return status


class Handshakes(unittest.TestCase):
    def assert_status(self, expected, path="/echo", **fields):
        data, _ = raw.handshake(server.http_port, path, **fields)
        self.assertEqual(status_of(data), expected)

    def tearDown(self):
        """Whatever happened, the server goes on."""
        with WebSocket(server.http_port) as ws:
            ws.send(frame(TEXT, b"still here"))
            self.assertEqual(ws.receive(), (TEXT, b"still here", True))

    def test_foreign_origin_is_forbidden(self):
        self.assert_status(403, Origin="http://evil.example")
        self.assert_status(403, Origin="null")
        self.assert_status(403, Origin=f"http://127.0.0.1:{server.http_port}.evil.example")

    def test_no_upgrade_is_asked_to_upgrade(self):
        data, _ = raw.handshake(server.http_port, Upgrade=None, Connection=None)
        status, fields, stream = raw.request(server.http_port, data)
        stream.close()
        self.assertEqual((status, fields.get("upgrade", "").lower()), (426, "websocket"))

    def test_another_version_is_told_which_one(self):
        data, _ = raw.handshake(server.http_port, Sec_WebSocket_Version="8")
        status, fields, stream = raw.request(server.http_port, data)
        stream.close()
        self.assertEqual((status, fields.get("sec-websocket-version")), (426, "13"))

    def test_bad_key(self):
        self.assert_status(400, Sec_WebSocket_Key=None)
        self.assert_status(400, Sec_WebSocket_Key="short")
        self.assert_status(400, Sec_WebSocket_Key="A" * 24)

    def test_no_host(self):
        self.assert_status(400, Host=None)

    def test_nothing_there(self):
        self.assert_status(404, path="/nothing/here")

    def test_topic_that_is_none(self):
        self.assert_status(400, path="/topics/with%20space")
        self.assert_status(400, path="/topics/" + "x" * 256)

    def test_not_http(self):
        self.assertEqual(status_of(b"HELLO\r\n\r\n"), 400)
        self.assertEqual(status_of(b"GET /echo HTTP/1.1\r\nHost localhost\r\n\r\n"), 400)

    def test_head_too_large(self):
        self.assert_status(431, X_Large="x" * 20000)
        self.assert_status(431, **{f"X-{number}": "y" for number in range(120)})

    def test_head_in_single_bytes(self):
        data, _ = raw.handshake(server.http_port)
        with raw.connect(server.http_port) as stream:
            for byte in data:
                stream.sendall(bytes([byte]))
            self.assertEqual(raw.read_head(stream)[0], 101)

    def test_bytes_before_the_switch_are_refused(self):
        data, _ = raw.handshake(server.http_port)
        self.assertEqual(status_of(data + frame(TEXT, b"early")), 400)

    def test_a_stuck_handshake_ends_in_time(self):
        for start in [b"", b"GET /echo HTTP/1.1\r\n"]:
            began = time.monotonic()
            with raw.connect(server.http_port) as stream:
                stream.sendall(start)
                answer = raw.read_to_end(stream)
            self.assertLess(time.monotonic() - began, 4)
            self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 408 "), answer)

    def test_a_byte_now_and_then_does_not_prolong_it(self):
        began = time.monotonic()
        with raw.connect(server.http_port) as stream:
            for byte in b"GET /echo HTTP/1.1\r\nX-Slow: " + b"x" * 100:
                stream.sendall(bytes([byte]))
                if select.select([stream], [], [], 0.1)[0]:
                    break
            self.assertLess(time.monotonic() - began, 4)
            answer = raw.read_to_end(stream)
            self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 408 "), answer)


class Frames(unittest.TestCase):
    def assert_close(self, code, *frames, path="/echo"):
        with WebSocket(server.http_port, path) as ws:
            ws.send(*frames)
            self.assertEqual(ws.expect_close(), code)
            ws.expect_end()

    def test_no_mask(self):
        self.assert_close(1002, frame(TEXT, b"hello", mask=None))

    def test_reserved_bits(self):
        for bits in [1, 2, 4]:
            self.assert_close(1002, frame(TEXT, b"hello", rsv=bits))

    def test_unknown_opcodes(self):
        for opcode in [3, 7, 11, 15]:
            self.assert_close(1002, frame(opcode, b""))

    def test_bad_control_frames(self):
        self.assert_close(1002, frame(PING, b"x" * 126))
        self.assert_close(1002, frame(PING, b"x", fin=False))

    def test_bad_fragmentation(self):
        self.assert_close(1002, frame(CONTINUATION, b"of what?"))
        self.assert_close(1002, frame(TEXT, b"a", fin=False), frame(TEXT, b"b"))

    def test_bad_close_frames(self):
        self.assert_close(1002, frame(CLOSE, b"\x03"))
        self.assert_close(1007, frame(CLOSE, raw.close_payload(1000) + b"\xff"))
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000]:
            self.assert_close(1002, frame(CLOSE, raw.close_payload(code)))

    def test_bad_utf8(self):
        self.assert_close(1007, frame(TEXT, b"\xff"))
        self.assert_close(1007, frame(TEXT, b"\xed\xa0\x80"))
        self.assert_close(1007, frame(TEXT, b"cut \xe4\xb8"))
        self.assert_close(1007, frame(TEXT, b"good ", fin=False), frame(CONTINUATION, b"\xc0\xaf", fin=False))

    def test_utf8_may_be_cut_by_a_fragment(self):
        with WebSocket(server.http_port) as ws:
            ws.send(frame(TEXT, b"\xe4\xb8", fin=False), frame(PING, b"between"), frame(CONTINUATION, b"\x96"))
            self.assertEqual(ws.receive(), (PONG, b"between", True))
            self.assertEqual(ws.receive(), (TEXT, "世".encode(), True))

    def test_too_big(self):
        self.assert_close(1009, frame(BINARY, bytes(1024 * 1024 + 1)))

    def test_a_declared_length_over_the_limit_needs_no_payload(self):
        for length in [1024 * 1024 + 1, 2**63 - 1]:
            self.assert_close(1009, b"\x82\xff" + length.to_bytes(8, "big") + b"mask")

    def test_a_length_with_the_highest_bit(self):
        with WebSocket(server.http_port) as ws:
            ws.send(b"\x82\xff" + (2**63).to_bytes(8, "big") + b"mask")
            self.assertIn(ws.expect_close(), [1002, 1009])

    def test_too_big_in_fragments(self):
        part = bytes(256 * 1024)
        more = [frame(CONTINUATION, part, fin=False)] * 4
        self.assert_close(1009, frame(BINARY, part, fin=False), *more)

    def test_empty_fragments_are_counted(self):
        self.assert_close(1008, frame(TEXT, b"", fin=False), *[frame(CONTINUATION, b"", fin=False)] * 40)

    def test_a_bad_peer_harms_no_other(self):
        with WebSocket(server.http_port, "/topics/bystander") as good:
            with WebSocket(server.http_port, "/topics/bystander") as bad:
                bad.send(frame(TEXT, b"\xff"))
                self.assertEqual(bad.expect_close(), 1007)
            good.send(frame(TEXT, b"fine"))
            self.assertEqual(good.receive(), (TEXT, b"fine", True))

    def test_a_reset_harms_no_other(self):
        for _ in range(50):
            with WebSocket(server.http_port, "/topics/bystander") as bad:
                bad.stream.setsockopt(raw.socket.SOL_SOCKET, raw.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                bad.send(frame(TEXT, b"half a message", fin=False))
        with WebSocket(server.http_port, "/topics/bystander") as good:
            good.send(frame(TEXT, b"fine"))
            self.assertEqual(good.receive(), (TEXT, b"fine", True))


class SlowConsumers(unittest.TestCase):
    def test_one_who_never_reads_is_let_go_and_delays_nobody(self):
        message, count = bytes(64 * 1024), 400
        with WebSocket(server.http_port, "/topics/slow") as slow, WebSocket(server.http_port, "/topics/slow") as good:
            for _ in range(count):
                good.send(frame(BINARY, message))
                self.assertEqual(good.receive(), (BINARY, message, True))
            sent = raw.read_to_end(slow.stream)
        self.assertLess(len(sent), count * len(message), "its queue has no bound")


class RawTcp(unittest.TestCase):
    def test_a_length_over_the_limit_ends_the_connection(self):
        with raw.connect(server.ports[LENGTH_ECHO]) as stream:
            stream.sendall(b"\xff\xff\xff\xff")
            self.assertEqual(raw.read_to_end(stream), b"")

    def test_a_line_over_the_limit_ends_the_connection(self):
        with raw.connect(server.ports[LINE_ECHO]) as stream:
            try:
                stream.sendall(b"x" * (1024 * 1024 + 65536))
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.assertEqual(raw.read_to_end(stream), b"")


class Heartbeats(unittest.TestCase):
    """With an interval and a timeout of one second each, silence ends after two, and a tick."""

    INTERVAL_AND_TIMEOUT, LATE = 2.0, 2.0

    @classmethod
    def setUpClass(cls):
        flags = ["--heartbeat-interval", "1s", "--heartbeat-timeout", "1s"]
        cls.server = cls.enterClassContext(Server(*flags, listeners=(HTTP, LINE_ECHO, LENGTH_ECHO)))

    def test_one_who_does_not_answer_is_closed_with_4000(self):
        with WebSocket(self.server.http_port) as ws:
            began = time.monotonic()
            self.assertEqual(ws.receive()[0], PING)
            self.assertEqual(ws.expect_close(), 4000)
            took = time.monotonic() - began
        self.assertGreater(took, 0.8 * self.INTERVAL_AND_TIMEOUT)
        self.assertLess(took, self.INTERVAL_AND_TIMEOUT + self.LATE)

    def test_one_who_answers_lives(self):
        with WebSocket(self.server.http_port) as ws:
            for _ in range(4):
                opcode, payload, _ = ws.receive()
                self.assertEqual(opcode, PING)
                ws.send(frame(PONG, payload))
            ws.send(frame(TEXT, b"alive"))
            self.assertEqual(ws.receive(), (TEXT, b"alive", True))

    def test_one_who_talks_without_answering_lives(self):
        with WebSocket(self.server.http_port) as ws:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                ws.send(frame(TEXT, b"talk"))
                while (got := ws.receive())[0] == PING:
                    pass
                self.assertEqual(got, (TEXT, b"talk", True))
                time.sleep(0.3)

    def test_line_asks_with_an_empty_line_and_ends_the_silent(self):
        self.check_tcp(LINE_ECHO, b"\n", b"alive\n")

    def test_length_asks_with_an_empty_frame_and_ends_the_silent(self):
        self.check_tcp(LENGTH_ECHO, bytes(4), b"\0\0\0\x05alive")

    def check_tcp(self, listener, empty, message):
        with raw.connect(self.server.ports[listener]) as silent:
            began = time.monotonic()
            self.assertEqual(raw.read_exactly(silent, len(empty)), empty)
            rest = raw.read_to_end(silent)
            self.assertEqual(rest.replace(empty, b""), b"")
            self.assertLess(time.monotonic() - began, self.INTERVAL_AND_TIMEOUT + self.LATE)
        with raw.connect(self.server.ports[listener]) as answers:
            for _ in range(4):
                self.assertEqual(raw.read_exactly(answers, len(empty)), empty)
                answers.sendall(empty)
            answers.sendall(message)
            self.assertEqual(raw.read_exactly(answers, len(message)), message)


if __name__ == "__main__":
    unittest.main()
