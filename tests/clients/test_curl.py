"""curl: every request that there is to make, and every way to be refused."""

import base64
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import unittest

from http_answers import check_error, cursor
from raw import connect, read_to_end
from server import HTTP, Server

SECONDS_MAX = 15
EVENTS = ("-H", "Accept: text/event-stream")
FRIEND = "https://app.example"


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server(listeners=(HTTP,), HOLDLINE_WEBSOCKET_ORIGINS=FRIEND))


class Answer:
    """One response as `curl --include` shows it."""

    def __init__(self, head, body):
        lines = head.split("\r\n")
        self.version, status, self.phrase = lines[0].split(" ", 2)
        self.status = int(status)
        fields = [line.split(": ", 1) for line in lines[1:]]
        self.fields = {name.lower(): value for name, value in fields}
        assert len(self.fields) == len(fields), f"a field that is there twice: {fields}"
        self.body = body

    def json(self):
        assert self.fields["content-type"] == "application/json", self.fields
        assert self.body.endswith(b"\n"), self.body
        return json.loads(self.body)

    def lines(self):
        assert self.fields["content-type"] == "application/x-ndjson", self.fields
        assert self.body.endswith(b"\n"), self.body
        return [json.loads(line) for line in self.body.splitlines()]


def command(path, *arguments, at=None):
    url = f"http://127.0.0.1:{(at or server).http_port}{path}"
    return ["curl", "--silent", "--show-error", "--max-time", str(SECONDS_MAX), *arguments, url]


def curl(path, *arguments, at=None, said=b""):
    """Runs curl to the end of its one answer."""
    done = subprocess.run(
        command(path, "--include", *arguments, at=at), input=said, capture_output=True, timeout=2 * SECONDS_MAX, check=False
    )
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr.decode()}"
    rest = done.stdout
    while True:
        head, _, rest = rest.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 100 "):
            return Answer(head.decode(), rest)


def post(topic, *arguments, at=None, said=b""):
    answer = curl(f"/topics/{topic}", *arguments, at=at, said=said)
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json()


def history(topic, query="", at=None):
    answer = curl(f"/topics/{topic}/history{query}", at=at)
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json()


def refused(status, path, *arguments, code=None, at=None, said=b""):
    answer = curl(path, *arguments, at=at, said=said)
    assert answer.status == status, (answer.status, answer.body)
    assert answer.fields["content-type"] == "application/json", answer.fields
    assert int(answer.fields["content-length"]) == len(answer.body)
    check_error(answer.body.decode(), code)
    return answer


class Stream:
    """A curl that reads for as long as the `with` block lasts."""

    def __init__(self, path, *arguments, at=None):
        self.process = subprocess.Popen(
            command(path, "--no-buffer", *arguments, at=at),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def line(self):
        line = self.process.stdout.readline()
        assert line.endswith(b"\n"), f"curl ended in {line!r}"
        return line[:-1].decode()

    def block(self):
        """The lines up to an empty one, without heartbeats."""
        lines = []
        while line := self.line():
            if not line.startswith(":"):
                lines.append(line)
        return lines


class Publish(unittest.TestCase):
    def test_text(self):
        place = post("text", "--data", "grüße")
        self.assertEqual(list(place), ["topic", "epoch", "offset", "subscribers"])
        self.assertEqual((place["topic"], place["offset"], place["subscribers"]), ("text", 1, 0))
        (message,) = history("text")
        self.assertEqual(list(message), ["topic", "epoch", "offset", "time", "text"])
        self.assertEqual((message["text"], cursor(message)), ("grüße", cursor(place)))
        self.assertAlmostEqual(message["time"] / 1000, time.time(), delta=10)

    def test_binary_by_its_content_type(self):
        post("binary", "-H", "Content-Type: application/octet-stream", "--data", "text")
        post("binary", "-H", "Content-Type:", "--data-binary", "@-", said=b"\xff\x00")
        post("binary", "-H", "Content-Type: text/plain; charset=utf-8", "--data", "text")
        first, second, third = history("binary")
        self.assertEqual(base64.b64decode(first["base64"]), b"text")
        self.assertEqual(base64.b64decode(second["base64"]), b"\xff\x00")
        self.assertEqual(third["text"], "text")
        refused(400, "/topics/binary", "-H", "Content-Type: text/plain", "--data-binary", "@-", code="bad_utf8", said=b"\xff")

    def test_empty(self):
        post("empty", "--request", "POST")
        post("empty", "--data", "")
        self.assertEqual([message["text"] for message in history("empty")], ["", ""])

    def test_a_large_file(self):
        data = base64.b64encode(os.urandom(900 * 1024))[: 900 * 1024]
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            post("large", "--data-binary", f"@{file.name}")
        (message,) = history("large")
        self.assertEqual(message["text"].encode(), data)

    def test_expect_continue(self):
        done = subprocess.run(
            command("/topics/expect", "--verbose", "-H", "Expect: 100-continue", "--expect100-timeout", "10", "--data", "x"),
            capture_output=True,
            text=True,
            timeout=2 * SECONDS_MAX,
            check=True,
        )
        self.assertIn("< HTTP/1.1 100 Continue", done.stderr)
        self.assertEqual(json.loads(done.stdout)["offset"], 1)
        self.assertEqual(history("expect")[0]["text"], "x")

    def test_chunks_of_unknown_length(self):
        data = b"0123456789" * 20_000
        post("chunks", "--request", "POST", "--upload-file", "-", said=data)
        self.assertEqual(history("chunks")[0]["text"].encode(), data)

    def test_an_idempotency_key(self):
        key = ("-H", "Idempotency-Key: order-17")
        first = post("orders", *key, "--data", "one")
        second = post("orders", *key, "--data", "one")
        self.assertNotIn("duplicate", first)
        self.assertEqual(second, first | {"duplicate": True})
        post("orders", "-H", "Idempotency-Key: order-18", "--data", "two")
        self.assertEqual([message["text"] for message in history("orders")], ["one", "two"])
        refused(400, "/topics/orders", "-H", f"Idempotency-Key: {'k' * 300}", "--data", "x")

    def test_names_of_topics(self):
        self.assertEqual(post("a/bc", "--data", "x")["topic"], "a/bc")
        self.assertEqual(post("gr%C3%BC%C3%9Fe", "--data", "x")["topic"], "grüße")
        self.assertEqual(post("one%2Ctwo", "--data", "x")["topic"], "one,two")
        self.assertEqual(post("x" * 255, "--data", "x")["topic"], "x" * 255)
        for name in ["a%20b", "a%00b", "%FF", "x" * 256]:
            refused(400, f"/topics/{name}", "--data", "x")

    def test_a_batch(self):
        lines = [
            {"topic": "batch/a", "text": "one"},
            {"topic": "batch/b", "base64": base64.b64encode(b"\x00\xff").decode()},
            {"topic": "batch/a", "text": "two", "key": "k"},
            {"topic": "batch/a", "text": "two", "key": "k"},
            {"topic": "bad topic", "text": "x"},
            {"text": "nowhere"},
        ]
        body = b"\n".join(json.dumps(line).encode() for line in lines) + b"\nnothing\n"
        answer = curl("/topics", "--data-binary", "@-", said=body)
        self.assertEqual(answer.status, 200)
        results = answer.lines()
        self.assertEqual([line.get("offset") for line in results], [1, 1, 2, 2, None, None, None])
        self.assertEqual([line.get("duplicate") for line in results[:4]], [None, None, None, True])
        for line in results[4:]:
            check_error(json.dumps(line) + "\n")
        self.assertEqual([message["text"] for message in history("batch/a")], ["one", "two"])
        self.assertEqual(base64.b64decode(history("batch/b")[0]["base64"]), b"\x00\xff")

    def test_to_a_chat_room(self):
        answer = curl("/chat/kitchen?name=ann", "--data", "tea?")
        self.assertEqual((answer.status, answer.json()["topic"]), (200, "chat/kitchen"))
        self.assertEqual(history("chat/kitchen")[0]["text"], "ann: tea?")


class Ask(unittest.TestCase):
    def test_history_by_parts(self):
        places = [post("parts", "--data", f"{number}") for number in range(5)]
        texts = lambda query: [message["text"] for message in history("parts", query)]
        self.assertEqual(texts(""), ["0", "1", "2", "3", "4"])
        self.assertEqual(texts(f"?since={cursor(places[2])}"), ["3", "4"])
        self.assertEqual(texts(f"?since={cursor(places[0])}&limit=2"), ["1", "2"])
        self.assertEqual(texts(f"?since={cursor(places[4])}"), [])
        self.assertEqual(texts("?limit=2"), ["3", "4"], "the last ones")
        self.assertEqual(history("never/published"), [])

    def test_history_that_is_lost(self):
        post("lost", "--data", "x")
        first, *rest = history("lost", "?since=1:1")
        self.assertTrue(first["reset"], first)
        self.assertEqual(list(first), ["topic", "epoch", "offset", "reset"])
        self.assertEqual([message["offset"] for message in rest], list(range(first["offset"] + 1, 2)))

    def test_history_of_which_too_much_is_asked(self):
        for query in ["?since=1", "?since=a:b", "?limit=x", "?limit=-1", "?since=1:1:1"]:
            refused(400, f"/topics/parts/history{query}", code="bad_parameter")

    def test_info(self):
        place = post("info", "--data", "x")
        with Stream("/topics/info?stream=1&history=1") as stream:
            stream.line()
            info = curl("/topics/info/info").json()
        self.assertEqual((cursor(info), info["topic"], info["subscribers"]), (cursor(place), "info", 1))
        self.assertEqual((info["history"]["messages"], info["history"]["first_offset"]), (1, 1))

    def test_answers_are_not_kept_by_caches(self):
        for path in ["/topics/x/info", "/topics/x/history", "/topics/x?wait=0s", "/topics/x?stream=1"]:
            answer = curl(path, "--head")
            self.assertEqual((answer.status, answer.fields.get("cache-control")), (200, "no-store"), path)

    def test_head_has_the_fields_of_get(self):
        for path in ["/topics/head/info", "/topics/head/history", "/", "/nothing"]:
            head, whole = curl(path, "--head"), curl(path)
            for fields in (head.fields, whole.fields):
                del fields["date"]
            self.assertEqual((head.status, head.fields, head.body), (whole.status, whole.fields, b""), path)
        for path, arguments in [("/topics/head", EVENTS), ("/topics/head?stream=1", ())]:
            self.assertEqual(curl(path, "--head", *arguments).body, b"")

    def test_head_of_what_is_refused(self):
        """A body after HEAD would be read as the next answer."""
        for path, status in [("/topics/t", 426), ("/echo", 426), ("/chat/room", 426), ("/topics", 405), ("/nothing", 404)]:
            with connect(server.http_port) as stream:
                stream.sendall(f"HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                answer = read_to_end(stream)
            self.assertTrue(answer.startswith(f"HTTP/1.1 {status} ".encode()), answer)
            self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)

    def test_options(self):
        for path, methods in [
            ("/topics/t", "GET, HEAD, POST, OPTIONS"),
            ("/chat/room", "GET, HEAD, POST, OPTIONS"),
            ("/topics", "POST, OPTIONS"),
            ("/", "GET, HEAD, OPTIONS"),
        ]:
            answer = curl(path, "--request", "OPTIONS")
            self.assertEqual((answer.status, answer.fields["allow"], answer.body), (204, methods, b""), path)
            self.assertNotIn("content-length", answer.fields)
        self.assertEqual(curl("/", "--request", "OPTIONS", "--request-target", "*").status, 204)

    def test_a_page_of_an_allowed_site_asks_first(self):
        asks = ("--request", "OPTIONS", "-H", "Access-Control-Request-Method: POST")
        answer = curl("/topics/t", *asks, "-H", f"Origin: {FRIEND}")
        self.assertEqual(answer.status, 204)
        self.assertEqual(answer.fields["access-control-allow-origin"], FRIEND)
        self.assertIn("POST", answer.fields["access-control-allow-methods"])
        self.assertIn("Idempotency-Key", answer.fields["access-control-allow-headers"])
        self.assertIn("Origin", answer.fields["vary"])
        self.assertEqual(answer.fields["access-control-allow-credentials"], "true")
        self.assertEqual(answer.fields["access-control-max-age"], "600")
        answer = curl("/topics/t", "-H", f"Origin: {FRIEND}", "--data", "x")
        self.assertEqual(answer.fields["access-control-allow-origin"], FRIEND)
        self.assertIn("Holdline-Cursor", answer.fields["access-control-expose-headers"])
        for arguments in [asks, ("--data", "x"), EVENTS]:
            answer = refused(403, "/topics/t", *arguments, "-H", "Origin: https://evil.example")
            self.assertNotIn("access-control-allow-origin", answer.fields)


class Read(unittest.TestCase):
    def test_events(self):
        first = post("events", "--data", "past")
        with Stream("/topics/events?history=5", *EVENTS) as stream:
            retry, start, *event = stream.block()
            self.assertEqual([line.rstrip() for line in event], ["event: start", "data:"])
            self.assertRegex(retry, r"^retry: \d+$")
            self.assertEqual(start, f"id: {first['epoch']}:0")
            self.assertEqual(stream.block(), [f"id: {cursor(first)}", "data: past"])
            second = post("events", "--data", "two\nlines")
            self.assertEqual(second["subscribers"], 1)
            self.assertEqual(stream.block(), [f"id: {cursor(second)}", "data: two", "data: lines"])
            third = post("events", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-", said=b"\x00")
            name, data = sorted(set(stream.block()) - {f"id: {cursor(third)}"}, reverse=True)
            self.assertEqual((name, json.loads(data[6:])["base64"]), ("event: binary", "AA=="))

    def test_events_resume_after_the_last(self):
        places = [post("resume", "--data", f"{number}") for number in range(4)]
        with Stream("/topics/resume", *EVENTS, "-H", f"Last-Event-ID: {cursor(places[1])}") as stream:
            self.assertEqual(stream.block()[1], f"id: {cursor(places[1])}")
            for number in (2, 3):
                self.assertEqual(stream.block(), [f"id: {cursor(places[number])}", f"data: {number}"])
        with Stream("/topics/resume", *EVENTS, "-H", "Last-Event-ID: 1:1") as stream:
            blocks = [stream.block() for _ in range(2)]
            (reset,) = [block for block in blocks if "event: reset" in block]
            data = next(line for line in reset if line.startswith("data: "))
            self.assertTrue(json.loads(data[6:])["reset"])

    def test_events_resume_from_before_the_first(self):
        """A stream says where it stands before there is any message."""
        with Stream("/topics/early", *EVENTS) as stream:
            start = stream.block()[1].removeprefix("id: ")
        post("early", "--data", "while nobody was there")
        with Stream("/topics/early", *EVENTS, "-H", f"Last-Event-ID: {start}") as stream:
            stream.block()
            self.assertEqual(stream.block()[-1], "data: while nobody was there")

    def test_events_of_several_topics(self):
        one, two = post("several/1", "--data", "a"), post("several/2", "--data", "b")
        path = "/topics/several/1,several/2"
        with Stream(f"{path}?history=1", *EVENTS) as stream:
            stream.block()
            blocks = [stream.block() for _ in range(2)]
            texts = {message["topic"]: message["text"] for message in (json.loads(block[-1][6:]) for block in blocks)}
            self.assertEqual(texts, {"several/1": "a", "several/2": "b"})
            self.assertEqual(blocks[1][0], f"id: {cursor(one)},{cursor(two)}")
        post("several/2", "--data", "c")
        with Stream(path, *EVENTS, "-H", f"Last-Event-ID: {blocks[1][0][4:]}") as stream:
            stream.block()
            self.assertEqual(json.loads(stream.block()[-1][6:])["text"], "c")

    def test_lines(self):
        first = post("lines", "--data", "past")
        with Stream("/topics/lines?stream=1&history=1") as stream:
            message = json.loads(stream.line())
            self.assertEqual((message["text"], cursor(message)), ("past", cursor(first)))
            post("lines", "--data", "new")
            self.assertEqual(json.loads(stream.line())["text"], "new")
        with Stream("/topics/lines?stream=1&since=1:1") as stream:
            self.assertTrue(json.loads(stream.line())["reset"])

    def test_a_chat_room_beside_a_member(self):
        with Stream("/chat/hall?name=ann", *EVENTS) as stream:
            stream.block()
            if (block := stream.block())[-1] != "data: ann joined the chat":
                self.fail(f"{block}")
            curl("/chat/hall?name=bob", "--data", "hello")
            self.assertEqual(stream.block()[-1], "data: bob: hello")

    def test_a_long_poll_at_once(self):
        places = [post("poll", "--data", f"{number}") for number in range(3)]
        began = time.monotonic()
        answer = curl(f"/topics/poll?wait=10s&since={cursor(places[0])}")
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual([message["text"] for message in answer.json()], ["1", "2"])
        self.assertEqual(answer.fields["holdline-cursor"], cursor(places[2]))

    def test_a_long_poll_that_waits(self):
        place = post("wait", "--data", "0")
        later = threading.Timer(0.3, post, ["wait", "--data", "1"])
        later.start()
        answer = curl(f"/topics/wait?wait=10s&since={cursor(place)}")
        later.join()
        self.assertEqual([message["text"] for message in answer.json()], ["1"])

    def test_a_long_poll_that_hears_nothing(self):
        place = post("quiet", "--data", "x")
        began = time.monotonic()
        answer = curl("/topics/quiet?wait=300ms")
        self.assertGreaterEqual(time.monotonic() - began, 0.3)
        self.assertEqual((answer.json(), answer.fields["holdline-cursor"]), ([], cursor(place)))

    def test_nothing_is_missed_between_two_polls(self):
        after = curl("/topics/between?wait=0s").fields["holdline-cursor"]
        for number in range(3):
            post("between", "--data", f"{2 * number}")
            post("between", "--data", f"{2 * number + 1}")
            answer = curl(f"/topics/between?wait=10s&since={after}")
            self.assertEqual([message["text"] for message in answer.json()], [f"{2 * number}", f"{2 * number + 1}"])
            after = answer.fields["holdline-cursor"]


class Connections(unittest.TestCase):
    def reuses(self, first, second):
        """Makes two requests with one curl, which says whether they shared a connection."""
        format = "\n%{http_code} %{num_connects}\n"
        arguments = [*command(*first, "--verbose", "-w", format), "--next", *command(*second, "-w", format)[1:]]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=2 * SECONDS_MAX, check=True)
        codes = re.findall(r"^(\d{3}) (\d)$", done.stdout, re.MULTILINE)
        assert len(codes) == 2, done.stdout
        return [int(code) for code, _ in codes], codes[1][1] == "0" and "Re-using" in done.stderr

    def test_two_requests_on_one(self):
        a, info = ("/topics/reuse", "--data", "x"), ("/topics/reuse/info",)
        poll = ("/topics/reuse?wait=100ms",)
        for first, second in [(a, info), (info, a), (poll, a), (poll, poll), (("/",), info), (("/nothing",), info)]:
            self.assertEqual(self.reuses(first, second)[1], True, (first, second))
        bad = ("/topics/reuse/history?since=x",)
        self.assertEqual(self.reuses(bad, info), ([400, 200], True))

    def test_a_refusal_that_ends_it(self):
        answer = refused(405, "/topics/reuse", "--request", "DELETE")
        self.assertEqual(answer.fields["connection"], "close")

    def test_http_1_0(self):
        answer = curl("/topics/old", "--http1.0", "--data", "x")
        self.assertEqual((answer.version, answer.status, answer.fields["connection"]), ("HTTP/1.1", 200, "close"))
        answer = curl("/topics/old/info", "--http1.0", "-H", "Connection: keep-alive")
        self.assertEqual(answer.fields["connection"], "keep-alive")
        with Stream("/topics/old?history=1", "--http1.0", *EVENTS) as stream:
            stream.block()
            self.assertEqual(stream.block()[-1], "data: x")
        poll = curl("/topics/old?wait=1s&history=1", "--http1.0")
        self.assertEqual([message["text"] for message in poll.json()], ["x"])
        refused(505, "/topics/old?stream=1", "--http1.0")


class Refusals(unittest.TestCase):
    def test_400(self):
        for path in ["/topics/a%20b?wait=1s", "/topics/a?wait=soon", "/topics/a?stream=2", "/topics/a?stream=1&since=x"]:
            refused(400, path)
        refused(400, "/topics/a?history=x", *EVENTS, code="bad_parameter")
        refused(400, "/topics/a,a", *EVENTS, code="bad_topic")
        refused(400, "/topics/a?group=g&history=1", *EVENTS, code="bad_parameter")
        refused(400, "/", "-H", "Host: a b")
        refused(400, "/", "-H", "Bad Name: x")

    def test_404(self):
        for path in ["/nothing", "/topics/", "/chat", "/topicsx/a"]:
            refused(404, path, code="not_found")

    def test_405_says_what_is_allowed(self):
        for path, method, methods in [
            ("/topics/t", "DELETE", "GET, HEAD, POST, OPTIONS"),
            ("/topics/t", "PUT", "GET, HEAD, POST, OPTIONS"),
            ("/chat/room", "PATCH", "GET, HEAD, POST, OPTIONS"),
            ("/topics", "GET", "POST, OPTIONS"),
            ("/topics", "PUT", "POST, OPTIONS"),
            ("/", "POST", "GET, HEAD, OPTIONS"),
            ("/nothing", "POST", "GET, HEAD, OPTIONS"),
        ]:
            answer = refused(405, path, "--request", method, code="method_not_allowed")
            self.assertEqual(answer.fields["allow"], methods, (method, path))
        refused(501, "/topics/t", "--request", "BREW")

    def test_408(self):
        settings = {"HOLDLINE_LIMITS_BODY_TIMEOUT": "200ms", "HOLDLINE_LIMITS_HANDSHAKE_TIMEOUT": "200ms"}
        with Server(listeners=(HTTP,), **settings) as own:
            for begun in [b"GET / HTTP/1.1\r\nHost:", b"POST /topics/t HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"]:
                # curl sends whole requests only.
                with connect(own.http_port) as stream:
                    stream.sendall(begun)
                    head, _, body = read_to_end(stream).partition(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), head)
                self.assertIn(b"\r\nConnection: close\r\n", head)
                check_error(body.decode(), "request_timeout")

    def test_411_and_413_where_no_body_is_taken(self):
        refused(411, "/topics/t/info", "--request", "GET", "-H", "Transfer-Encoding: chunked", "--data", "x")
        refused(413, "/topics/t/info", "--request", "GET", "--data", "x")

    def test_413(self):
        big = b"x" * (1024 * 1024 + 1)
        refused(413, "/topics/t", "--data-binary", "@-", said=big)
        refused(413, "/topics/t", "--request", "POST", "--upload-file", "-", said=big)
        line = json.dumps({"topic": "t", "text": "x" * 1000}).encode() + b"\n"
        refused(413, "/topics", "--data-binary", "@-", said=line * 5000)

    def test_414_and_431(self):
        refused(414, "/topics/" + "x" * 9000)
        refused(431, "/", "-H", f"X-Long: {'x' * 17_000}")
        refused(431, "/", *(f"-HX-{number}: x" for number in range(101)))

    def test_417(self):
        refused(417, "/topics/t", "-H", "Expect: a-miracle", "--data", "x")

    def test_426(self):
        for path in ["/echo", "/topics/t", "/chat/room"]:
            answer = refused(426, path, code="upgrade_required")
            self.assertEqual(answer.fields["upgrade"], "websocket")
            self.assertEqual(answer.fields["connection"], "Upgrade, close")

    def test_503_says_when_to_come_again(self):
        with Server("--max-connections", "1", listeners=(HTTP,)) as own, connect(own.http_port) as holder:
            holder.sendall(b"GET /topics/t/info HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertTrue(holder.recv(65536).startswith(b"HTTP/1.1 200"))
            answer = refused(503, "/topics/t/info", at=own)
            self.assertRegex(answer.fields["retry-after"], r"^[1-9]\d*$")
            self.assertEqual(answer.fields["connection"], "close")
