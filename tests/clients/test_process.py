"""The program as a process: how it starts, how it refuses to, how it ends."""

import asyncio
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
import unittest
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import raw
from raw import TEXT, WebSocket, frame
from server import BACKEND, HTTP, LINE_ECHO, PROGRAM, AsyncTest, Server, environment, run

SECONDS_MAX = 15


class Start(unittest.TestCase):
    def test_every_listener_is_named_once_and_ready_comes_last(self):
        with Server(listeners=(HTTP, LINE_ECHO)) as server:
            self.assertEqual(server.said[-1], "ready")
            self.assertEqual([line.split("://")[0] for line in server.said[:2]], ["listening on http", "listening on tcp"])
            self.assertEqual(len(set(server.said)), len(server.said))

    def test_flags_beat_the_environment(self):
        with Server("--heartbeat-interval", "1s", listeners=(HTTP,), HOLDLINE_HEARTBEAT_INTERVAL="1h") as server:
            with WebSocket(server.http_port) as ws:
                self.assertEqual(ws.receive()[0], raw.PING)

    def test_the_environment_beats_the_default(self):
        with Server(listeners=(HTTP,), HOLDLINE_LIMITS_MESSAGE_BYTES_MAX="1000") as server:
            with WebSocket(server.http_port) as ws:
                ws.send(frame(TEXT, b"x" * 1000))
                self.assertEqual(ws.receive()[1], b"x" * 1000)
                ws.send(frame(TEXT, b"x" * 1001))
                self.assertEqual(ws.expect_close(), 1009)

    def test_one_connection_too_many_is_turned_away_and_the_rest_go_on(self):
        with Server("--max-connections", "10", listeners=(HTTP,), shards=1) as server:
            clients = [WebSocket(server.http_port) for _ in range(10)]
            answer = b""
            try:
                with raw.connect(server.http_port) as extra:
                    extra.sendall(raw.handshake(server.http_port)[0])
                    answer = raw.read_to_end(extra)
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 503 "), answer)
            for ws in clients:
                ws.send(frame(TEXT, b"still here"))
                self.assertEqual(ws.receive()[1], b"still here")
                ws.stream.close()


class Refusals(unittest.TestCase):
    """Bad arguments and settings: status 2 and one line that says what, where and how to mend it."""

    def assert_refused(self, *arguments, named, status=2, **settings):
        got, out, errors = run(*arguments, **settings)
        self.assertEqual(got, status, errors)
        lines = errors.strip().splitlines()
        self.assertEqual(len(lines), 1, errors)
        self.assertNotIn("panicked", errors)
        self.assertIn(named, errors)
        self.assertNotIn("ready", out)

    def test_unknown_flag(self):
        self.assert_refused("serve", "--lissten", "http://127.0.0.1:0", named="--lissten")

    def test_unknown_command(self):
        self.assert_refused("serv", named="serv")

    def test_bad_values(self):
        self.assert_refused("serve", "--shards", "many", named="many")
        self.assert_refused("serve", "--backend", "kqueue", named="kqueue")
        self.assert_refused("serve", "--heartbeat-interval", "soon", named="soon")

    def test_bad_listeners(self):
        for url, named in [
            ("ftp://127.0.0.1:0", "ftp"),
            ("127.0.0.1", "127.0.0.1"),
            ("http://127.0.0.1:99999", "99999"),
            ("tcp://127.0.0.1:0?framing=smoke", "smoke"),
        ]:
            self.assert_refused("serve", "--listen", url, named=named)

    def test_bad_environment(self):
        name = "HOLDLINE_LIMITS_MESSAGE_BYTES_MAX"
        self.assert_refused("serve", "--listen", HTTP, named=name, **{name: "banana"})

    def test_unknown_environment(self):
        name = "HOLDLINE_LIMITS_MESSAGE_BYTES_MAXX"
        self.assert_refused("serve", "--listen", HTTP, named=name, **{name: "1"})

    def test_missing_configuration_file(self):
        self.assert_refused("serve", "--config", "/does/not/exist.toml", named="/does/not/exist.toml")

    def test_port_taken_by_another_program(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.assert_refused("serve", "--admin", "127.0.0.1:0", "--listen", f"http://{address}", named=address, status=1)

    def test_port_taken_by_another_holdline(self):
        with Server(listeners=(HTTP,)) as server:
            address = f"127.0.0.1:{server.http_port}"
            command = ["serve", "--backend", BACKEND, "--admin", "127.0.0.1:0", "--listen", f"http://{address}"]
            self.assert_refused(*command, named=address, status=1)


class Configuration(unittest.TestCase):
    def setUp(self):
        self.file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "holdline.toml"

    def test_the_default_configuration_is_toml_and_valid(self):
        status, out, errors = run("default-config")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("limits", tomllib.loads(out))
        self.file.write_text(out)
        status, _, errors = run("check-config", str(self.file))
        self.assertEqual((status, errors), (0, ""))

    def test_every_error_is_named_with_its_line(self):
        self.file.write_text('backend = "kqueue"\n\n[limits]\nmessage_bytes_maxx = 1\nhandshake_timeout = "soon"\n')
        status, out, errors = run("check-config", str(self.file))
        said = out + errors
        self.assertEqual(status, 1, said)
        for line, word in [(1, "kqueue"), (4, "message_bytes_maxx"), (5, "soon")]:
            self.assertTrue(any(word in text and f"{line}" in text for text in said.splitlines()), said)
        self.assertIn("message_bytes_max", said.replace("message_bytes_maxx", ""), "the nearest known key")

    def test_a_file_sets_and_flags_win_over_it(self):
        self.file.write_text('[limits]\nmessage_bytes_max = "1KiB"\n\n[heartbeat]\ninterval = "1h"\n')
        with Server("--config", str(self.file), "--heartbeat-interval", "1s", listeners=(HTTP,)) as server:
            with WebSocket(server.http_port) as ws:
                self.assertEqual(ws.receive()[0], raw.PING)
                ws.send(frame(TEXT, b"x" * 1025))
                self.assertEqual(ws.expect_close(), 1009)


class ChatCommand(unittest.TestCase):
    def test_standard_input_in_messages_out(self):
        with Server(listeners=(HTTP,)) as server, WebSocket(server.http_port, "/chat/cli?name=ann") as ann:
            self.assertEqual(ann.receive()[1], b"ann joined the chat")
            command = [PROGRAM, "chat", server.ws("/chat/cli?name=bob")]
            bob = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            try:
                self.assertEqual(ann.receive()[1], b"bob joined the chat")
                bob.stdin.write(b"hi\n")
                self.assertEqual(ann.receive()[1], b"bob: hi")
                ann.send(frame(TEXT, b"hello"))
                self.assertEqual(ann.receive()[1], b"ann: hello")
                for line in [b"bob joined the chat\n", b"bob: hi\n", b"ann: hello\n"]:
                    self.assertEqual(bob.stdout.readline(), line)
                bob.stdin.close()
                self.assertEqual(ann.receive()[1], b"bob left the chat")
                self.assertEqual(bob.wait(SECONDS_MAX), 0)
            finally:
                bob.kill()
                bob.wait()
                bob.stdout.close()

    def test_nobody_there(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        status, _, errors = run("chat", f"ws://127.0.0.1:{port}/chat/cli?name=bob")
        self.assertEqual(status, 1)
        self.assertEqual(len(errors.strip().splitlines()), 1, errors)
        self.assertIn(str(port), errors)


class Drain(AsyncTest):
    async def test_every_client_gets_1001_and_the_process_ends_with_0(self):
        for stop in [signal.SIGTERM, signal.SIGINT]:
            with Server(listeners=(HTTP, LINE_ECHO), drain="2s") as server:
                urls = ["/echo", "/chat/drain?name=a", "/topics/drain"] * 10
                clients = [await connect(server.ws(path)) for path in urls]
                idle = [await asyncio.open_connection("127.0.0.1", server.ports[LINE_ECHO]) for _ in range(10)]
                for reader, writer in idle:
                    # Only who has been accepted is said good-bye to.
                    writer.write(b"here\n")
                    self.assertEqual(await reader.readline(), b"here\n")
                server.signal(stop)
                async with asyncio.timeout(SECONDS_MAX):
                    for ws in clients:
                        await drain_messages(ws)
                        self.assertEqual(ws.close_code, 1001)
                    for reader, writer in idle:
                        await reader.read()
                        writer.close()
                self.assertEqual(await asyncio.to_thread(server.process.wait, SECONDS_MAX), 0)

    async def test_closing_is_spread_over_the_period(self):
        with Server(listeners=(HTTP,), drain="4s") as server:
            clients = [await connect(server.ws("/echo")) for _ in range(60)]
            began = time.monotonic()
            server.signal()

            async def ended(ws):
                await ws.wait_closed()
                return time.monotonic() - began

            async with asyncio.timeout(SECONDS_MAX):
                times = sorted(await asyncio.gather(*map(ended, clients)))
            self.assertLess(times[0], 2)
            self.assertGreater(times[-1] - times[0], 1)
            self.assertLess(times[-1], 6)

    async def test_a_draining_server_takes_no_new_clients(self):
        with Server(listeners=(HTTP,), drain="3s") as server:
            with WebSocket(server.http_port):
                await asyncio.to_thread(server.drains)
                with self.assertRaises(ConnectionError):
                    raw.connect(server.http_port)

    async def test_a_client_that_does_not_answer_does_not_hold_it_up(self):
        with Server(listeners=(HTTP,), drain="1s") as server:
            with WebSocket(server.http_port) as ws:
                server.signal()
                self.assertEqual(ws.expect_close(), 1001)
                self.assertEqual(await asyncio.to_thread(server.process.wait, SECONDS_MAX), 0)

    async def test_what_was_sent_before_the_signal_is_delivered(self):
        with Server(listeners=(HTTP,), drain="2s") as server:
            async with connect(server.ws("/topics/last"), max_queue=None) as ws:
                for number in range(500):
                    await ws.send(str(number))
                await asyncio.wait_for(ws.recv(), SECONDS_MAX)
                await (await ws.ping())
                server.signal()
                self.assertEqual(await drain_messages(ws), [str(number) for number in range(1, 500)])

    async def test_a_second_signal_ends_it_at_once(self):
        with Server(listeners=(HTTP,), drain="30s") as server:
            clients = [WebSocket(server.http_port) for _ in range(10)]
            await asyncio.to_thread(server.drains)
            server.signal()
            await asyncio.to_thread(server.process.wait, 3)
            for ws in clients:
                ws.stream.close()

    async def test_without_clients_it_ends_at_once(self):
        with Server(drain="30s") as server:
            self.assertEqual(await asyncio.to_thread(server.stop, 5), 0)


async def drain_messages(ws):
    """All messages until the connection ends."""
    messages = []
    try:
        while True:
            messages.append(await ws.recv())
    except ConnectionClosed:
        return messages


if __name__ == "__main__":
    unittest.main()
