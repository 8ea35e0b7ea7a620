"""HTTP/2 by others: the Python package h2, curl, nghttp and h2load."""

import json
import os
import re
import subprocess
import tempfile
import threading
import unittest

import h2.errors
import h2.events
import hyperframe.frame
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from h2_peer import Peer
from http_answers import check_error, cursor, events
from server import HTTP, Server

SECONDS_MAX = 30
BIG = 3 * 1024 * 1024


def setUpModule():
    global server, public
    public = unittest.enterModuleContext(tempfile.TemporaryDirectory())
    with open(os.path.join(public, "big.bin"), "wb") as file:
        file.write(os.urandom(BIG))
    with open(os.path.join(public, "small.txt"), "w", encoding="utf-8") as file:
        file.write("a small file\n")
    settings = {"HOLDLINE_LIMITS_BODY_BYTES_MAX": 8 * BIG, "HOLDLINE_LIMITS_MESSAGE_BYTES_MAX": 2 * BIG}
    server = unittest.enterModuleContext(Server("--public", public, listeners=(HTTP,), **settings))


def peer(**named):
    return Peer(server.http_port, **named)


def content(name):
    with open(os.path.join(public, name), "rb") as file:
        return file.read()


class Requests(unittest.TestCase):
    def test_get_head_and_what_is_not_there(self):
        with peer() as own:
            answer = own.ask("GET", "/small.txt")
            self.assertEqual((answer.status, answer.body), (200, b"a small file\n"))
            self.assertEqual(answer.fields["content-length"], "13")
            head = own.ask("HEAD", "/small.txt")
            self.assertEqual((head.status, head.body, head.fields["content-length"]), (200, b"", "13"))
            gone = own.ask("GET", "/nowhere")
            self.assertEqual(gone.status, 404)
            check_error(gone.body.decode())
            self.assertFalse({"connection", "keep-alive", "transfer-encoding"} & set(answer.fields))

    def test_post_and_history(self):
        with peer() as own:
            places = [json.loads(own.ask("POST", "/topics/h2-post", body=f"{n}".encode()).body) for n in range(100)]
            self.assertEqual([place["offset"] for place in places], list(range(1, 101)))
            kept = json.loads(own.ask("GET", "/topics/h2-post/history").body)
            self.assertEqual([message["text"] for message in kept], [f"{n}" for n in range(100)])

    def test_trailers_of_a_request(self):
        with peer() as own:
            stream = own.request("POST", "/echo", body=b"with trailers", ends=False)
            own.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
            own.flush()
            self.assertEqual(own.answer(stream).body, b"with trailers")

    def test_a_hundred_streams_at_once(self):
        with peer() as own:
            for _ in range(5):
                streams = {own.request("POST", "/echo", body=f"{n}".encode() * 50): f"{n}".encode() * 50 for n in range(100)}
                for stream, body in streams.items():
                    self.assertEqual(own.answer(stream).body, body)

    def test_a_big_echo(self):
        body = os.urandom(BIG)
        with peer() as own:
            self.assertEqual(own.ask("POST", "/echo", body=body).body, body)

    def test_big_files_through_small_windows(self):
        with peer() as own:
            streams = [own.request("GET", "/big.bin") for _ in range(4)]
            for stream in streams:
                self.assertEqual(own.answer(stream).body, content("big.bin"))
        with peer(window=1000) as own:
            self.assertEqual(own.ask("GET", "/small.txt").body, b"a small file\n")
            stream = own.request("GET", "/big.bin", fields=[("range", "bytes=0-99999")])
            self.assertEqual(own.answer(stream).body, content("big.bin")[:100_000])

    def test_a_file_waits_for_its_window(self):
        """Without updates a file stops where the window ends, and others go on until the connection's ends."""
        with peer(window=5000, credits=False) as own:
            big = own.request("GET", "/big.bin")
            own.until(lambda: len(own.answers[big].body) == 5000)
            self.assertEqual(own.ask("GET", "/small.txt").body, b"a small file\n")
            self.assertEqual(len(own.answers[big].body), 5000)
            own.h2.increment_flow_control_window(1234, big)
            own.flush()
            own.until(lambda: len(own.answers[big].body) == 6234)
            own.h2.reset_stream(big, h2.errors.ErrorCodes.CANCEL)
            own.flush()
            self.assertEqual(own.ask("GET", "/small.txt").status, 200)

    def test_ranges_and_entity_tags(self):
        with peer() as own:
            part = own.ask("GET", "/big.bin", fields=[("range", "bytes=1000000-1999999")])
            self.assertEqual((part.status, part.fields["content-range"]), (206, f"bytes 1000000-1999999/{BIG}"))
            self.assertEqual(part.body, content("big.bin")[1_000_000:2_000_000])
            last = own.ask("GET", "/big.bin", fields=[("range", "bytes=-10")])
            self.assertEqual(last.body, content("big.bin")[-10:])
            self.assertEqual(own.ask("GET", "/big.bin", fields=[("range", f"bytes={BIG}-")]).status, 416)
            tag = part.fields["etag"]
            same = own.ask("GET", "/big.bin", fields=[("if-none-match", tag)])
            self.assertEqual((same.status, same.body), (304, b""))

    def test_pings_and_resets(self):
        with peer() as own:
            for number in range(20):
                own.h2.ping(f"{number:08}".encode())
                stream = own.request("POST", "/echo", body=b"half", ends=False)
                own.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            own.flush()
            own.until(lambda: sum(isinstance(event, h2.events.PingAckReceived) for event in own.events) == 20)
            self.assertEqual(own.ask("GET", "/small.txt").status, 200)


class Streams(unittest.TestCase):
    def test_events_with_a_resume(self):
        fields = [("accept", "text/event-stream")]
        with peer() as own, peer() as other:
            first = json.loads(other.ask("POST", "/topics/h2-events", body=b"0").body)
            stream = own.request("GET", "/topics/h2-events", fields=[*fields, ("last-event-id", cursor(first))])
            source = events(own.lines(stream))
            for number in range(1, 50):
                other.ask("POST", "/topics/h2-events", body=f"{number}".encode())
            got = [next(source) for _ in range(30)]
            self.assertEqual(own.answers[stream].fields["content-type"].split(";")[0], "text/event-stream")
            own.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            # On the same connection, from where it was.
            again = own.request("GET", "/topics/h2-events", fields=[*fields, ("last-event-id", got[-1].cursor)])
            source = events(own.lines(again))
            got += [next(source) for _ in range(19)]
            self.assertEqual([event.data for event in got], [f"{number}" for number in range(1, 50)])

    def test_many_streams_of_events_on_one_connection(self):
        with peer() as own, peer() as other:
            fields = [("accept", "text/event-stream")]
            streams = [own.request("GET", "/topics/h2-many", fields=fields) for _ in range(50)]
            own.until(lambda: all(b"\n\n" in own.answers[stream].body for stream in streams))
            for number in range(40):
                other.ask("POST", "/topics/h2-many", body=f"{number}".encode())
            for stream in streams:
                source = events(own.lines(stream))
                self.assertEqual([next(source).data for _ in range(40)], [f"{number}" for number in range(40)])

    def test_long_polls(self):
        with peer() as own:
            start = own.ask("GET", "/topics/h2-poll?wait=0s").fields["holdline-cursor"]
            polls = [own.request("GET", f"/topics/h2-poll?wait=10s&since={start}") for _ in range(10)]
            own.ask("POST", "/topics/h2-poll", body=b"here")
            for poll in polls:
                self.assertEqual(json.loads(own.answer(poll).body)[0]["text"], "here")

    def test_a_stream_that_nobody_reads_delays_none(self):
        with peer(window=0, credits=False) as stalled, peer() as own, peer() as other:
            fields = [("accept", "text/event-stream")]
            stalled.request("GET", "/topics/h2-stalled", fields=fields)
            stream = own.request("GET", "/topics/h2-stalled", fields=fields)
            own.until(lambda: b"\n\n" in own.answers[stream].body)
            for number in range(200):
                other.ask("POST", "/topics/h2-stalled", body=f"{number}".encode() * 100)
            source = events(own.lines(stream))
            self.assertEqual([next(source).data for _ in range(200)], [f"{number}" * 100 for number in range(200)])


class WebSockets(unittest.TestCase):
    """RFC 8441: WebSockets on streams, their frames by the Python package wsproto."""

    def open(self, one, path, *fields):
        head = [(":protocol", "websocket"), ("sec-websocket-version", "13"), *fields]
        return one.request("CONNECT", path, fields=head, ends=False)

    def receive(self, one, stream, socket, taken):
        """The next event of a WebSocket; `taken` bytes of its stream have been looked at."""
        answer = one.answers[stream]
        while True:
            for event in socket.events():
                return event
            one.until(lambda: len(answer.body) > taken[0] or answer.ended)
            more, taken[0] = answer.body[taken[0] :], len(answer.body)
            socket.receive_data(more or None)

    def test_two_on_one_connection(self):
        with peer() as one:
            self.assertEqual(one.h2.remote_settings.enable_connect_protocol, 1)
            members = []
            for _ in range(2):
                stream = self.open(one, "/topics/ws?history=0")
                one.until(lambda: one.answers[stream].status is not None)
                self.assertEqual(one.answers[stream].status, 200)
                members.append((stream, Connection(ConnectionType.CLIENT), [0]))
            one.ask("POST", "/topics/ws", b"posted")
            stream, socket, _ = members[0]
            one.send(stream, socket.send(TextMessage("said")), ends=False)
            for stream, socket, taken in members:
                said = [self.receive(one, stream, socket, taken).data for _ in range(2)]
                self.assertEqual(said, ["posted", "said"])
            for stream, socket, taken in members:
                one.send(stream, socket.send(Ping(b"there?")), ends=False)
                pong = self.receive(one, stream, socket, taken)
                self.assertEqual((type(pong), bytes(pong.payload)), (Pong, b"there?"))
                one.send(stream, socket.send(CloseConnection(code=1000)), ends=False)
                self.assertEqual(self.receive(one, stream, socket, taken).code, 1000)
                one.until(lambda: one.answers[stream].ended)
            self.assertEqual(json.loads(one.ask("GET", "/topics/ws/info").body)["subscribers"], 0)

    def test_big_messages_and_an_end_without_a_good_bye(self):
        with peer() as one:
            stream = self.open(one, "/echo")
            socket, taken, message = Connection(ConnectionType.CLIENT), [0], os.urandom(500_000)
            one.send(stream, socket.send(BytesMessage(message)), ends=False)
            echo = b""
            while len(echo) < len(message):
                echo += self.receive(one, stream, socket, taken).data
            self.assertEqual(echo, message)
            one.h2.end_stream(stream)
            one.flush()
            one.until(lambda: one.answers[stream].ended or one.answers[stream].reset is not None)

    def test_what_is_refused(self):
        with peer() as one:
            for path, fields, status in [
                ("/topics/ws", [("sec-websocket-version", "12")], 400),
                ("/topics/ws", [("origin", "https://evil.example")], 403),
                ("/no/such/route", [], 404),
            ]:
                head = [(":protocol", "websocket"), *([("sec-websocket-version", "13")] if status != 400 else []), *fields]
                answer = one.answer(one.request("CONNECT", path, fields=head, ends=False))
                self.assertEqual(answer.status, status, path)
            for path in "/", "/topics/ws":
                head = [(":protocol", "connect-udp"), ("sec-websocket-version", "13")]
                answer = one.answer(one.request("CONNECT", path, fields=head, ends=False))
                self.assertEqual(answer.status, 501, path)


def parsed(data):
    """The frames in bytes."""
    while data:
        frame, length = hyperframe.frame.Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        yield frame
        data = data[9 + length :]


class Drain(unittest.TestCase):
    def test_goaway_at_sigterm(self):
        with Server(listeners=(HTTP,), drain="2s") as own, Peer(own.http_port) as one:
            one.request("GET", "/topics/t", fields=[("accept", "text/event-stream")])
            self.assertEqual(one.ask("POST", "/echo", body=b"before").status, 200)
            own.signal()
            # The package takes nothing after GOAWAY, though streams that are open may still end: read the frames alone.
            said = b""
            while data := one.socket.recv(65536):
                said += data
            frames = list(parsed(said))
            warning, goaway = [frame for frame in frames if isinstance(frame, hyperframe.frame.GoAwayFrame)]
            self.assertEqual((warning.error_code, warning.last_stream_id), (0, 2**31 - 1), "RFC 9113 section 6.8")
            self.assertEqual((goaway.error_code, goaway.last_stream_id), (0, 3))
            ends = [frame for frame in frames if frame.stream_id == 1 and "END_STREAM" in frame.flags]
            self.assertEqual(len(ends), 1, frames)


class Programs(unittest.TestCase):
    """curl, nghttp and h2load: without an error."""

    def url(self, path):
        return f"http://127.0.0.1:{server.http_port}{path}"

    def run_to_end(self, *command, said=b""):
        done = subprocess.run(command, input=said, capture_output=True, timeout=SECONDS_MAX, check=False)
        self.assertEqual(done.returncode, 0, (command, done.stderr, done.stdout[-2000:]))
        return done.stdout

    def curl(self, path, *arguments, said=b""):
        options = ("--silent", "--show-error", "--max-time", "15", "--http2-prior-knowledge", "--write-out", "\n%{http_version} %{http_code}")
        body, _, last = self.run_to_end("curl", *options, *arguments, self.url(path), said=said).rpartition(b"\n")
        return last.decode(), body

    def test_curl(self):
        self.assertEqual(self.curl("/small.txt"), ("2 200", b"a small file\n"))
        self.assertEqual(self.curl("/big.bin"), ("2 200", content("big.bin")))
        self.assertEqual(self.curl("/echo", "--data-binary", "@-", said=content("big.bin")), ("2 200", content("big.bin")))
        self.assertEqual(self.curl("/nowhere")[0], "2 404")
        code, body = self.curl("/topics/curl", "--data", "over HTTP/2")
        self.assertEqual((code, json.loads(body)["offset"]), ("2 200", 1))

    def test_curl_reads_events(self):
        command = ["curl", "-sSN", "--http2-prior-knowledge", "-H", "Accept: text/event-stream", self.url("/topics/curl-sse")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            lines = (line.rstrip("\n") for line in reader.stdout)
            first = next(lines)
            for number in range(20):
                self.curl("/topics/curl-sse", "--data", f"{number}")
            source = events(line for part in ([first], lines) for line in part)
            self.assertEqual([next(source).data for _ in range(20)], [f"{number}" for number in range(20)])
            reader.kill()

    def test_nghttp(self):
        said = self.run_to_end("nghttp", "-nv", self.url("/small.txt"), self.url("/big.bin"), self.url("/nowhere")).decode()
        self.assertEqual(sorted(re.findall(r":status: (\d+)", said)), ["200", "200", "404"])
        self.assertNotIn("RST_STREAM", said)
        self.assertEqual(self.run_to_end("nghttp", "-d", os.path.join(public, "big.bin"), self.url("/echo")), content("big.bin"))

    def h2load(self, path, requests, connections, streams, *arguments):
        said = self.run_to_end(
            "h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams), *arguments, self.url(path)
        ).decode()
        figures = dict((name, int(count)) for count, name in re.findall(r"(\d+) (\w+)[,\n]", re.search(r"^requests: .*\n", said, re.M)[0]))
        self.assertEqual({name: figures[name] for name in ("total", "succeeded", "failed", "errored", "timeout")},
                         {"total": requests, "succeeded": requests, "failed": 0, "errored": 0, "timeout": 0}, said)
        self.assertIn(f"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx", said)

    def test_h2load_pages(self):
        self.h2load("/small.txt", 20_000, 20, 50)

    def test_h2load_posts(self):
        with tempfile.NamedTemporaryFile() as body:
            body.write(b"x" * 1000)
            body.flush()
            self.h2load("/echo", 10_000, 10, 100, "-d", body.name)
            self.h2load("/topics/h2load", 5000, 50, 1, "-d", body.name)

    def test_h2load_big_files_and_one_window(self):
        self.h2load("/big.bin", 40, 4, 10, "-w", "16", "-W", "17")

    def test_h2load_beside_a_reader(self):
        """Every message that is published under load comes to a reader, in order."""
        with peer() as own, tempfile.NamedTemporaryFile() as body:
            body.write(b"load")
            body.flush()
            stream = own.request("GET", "/topics/h2-load", fields=[("accept", "text/event-stream")])
            own.until(lambda: b"\n\n" in own.answers[stream].body)
            loader = threading.Thread(target=self.h2load, args=("/topics/h2-load", 2000, 4, 4, "-d", body.name))
            loader.start()
            source = events(own.lines(stream))
            offsets = [int(next(source).cursor.split(":")[1]) for _ in range(2000)]
            loader.join()
            self.assertEqual(offsets, list(range(1, 2001)))
