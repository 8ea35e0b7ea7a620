"""The API of the admin listener: curl as an operator, clients of every protocol as those who are looked at and sent away."""

import json
import subprocess
import time
import unittest

import grpc
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from grpc_edge import Member, channel
from h2_peer import Peer
from http_answers import check_error
from raw import connect as tcp
from raw import read_to_end
from server import HTTP, LINE_TOPIC, Server

SECONDS_MAX = 15


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server(listeners=(HTTP, LINE_TOPIC)))


def curl(path, *arguments):
    """The status and the JSON of an answer."""
    url = f"http://127.0.0.1:{server.admin_port}{path}"
    command = ["curl", "--silent", "--show-error", "--max-time", str(SECONDS_MAX), "--write-out", "\n%{http_code}"]
    done = subprocess.run([*command, *arguments, url], capture_output=True, timeout=2 * SECONDS_MAX, check=True)
    body, status = done.stdout.decode().rsplit("\n", 1)
    return int(status), body


def api(path, *arguments):
    status, body = curl(path, "--header", "Content-Type: application/json", *arguments)
    assert status == 200, body
    return json.loads(body)


def post(path, **body):
    return api(path, "--data", json.dumps(body))


def until(what, is_so):
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def of(topic):
    return api(f"/api/connections?topic={topic}")["connections"]


class Kicks(unittest.TestCase):
    def test_every_protocol_is_listed_and_hears_that_it_ends(self):
        http = f"127.0.0.1:{server.http_port}"
        line = tcp(server.ports[LINE_TOPIC])
        events = subprocess.Popen(
            ["curl", "--silent", "--no-buffer", "--max-time", str(SECONDS_MAX), "--header", "Accept: text/event-stream"]
            + [f"http://{http}/topics/room"],
            stdout=subprocess.PIPE,
        )
        lines = subprocess.Popen(
            ["curl", "--silent", "--no-buffer", "--max-time", str(SECONDS_MAX), f"http://{http}/topics/room?stream=1"],
            stdout=subprocess.PIPE,
        )
        call = Member(channel(server.http_port))
        call.join("room")
        with connect(f"ws://{http}/topics/room") as websocket:
            until("all are there", lambda: len(of("room")) == 5)
            found = of("room")
            protocols = {"websocket", "tcp_line", "sse", "json_stream", "grpc"}
            self.assertEqual({connection["protocol"] for connection in found}, protocols)
            self.assertTrue(all(connection["address"].startswith("127.0.0.1:") for connection in found))
            closed = post("/api/kick", topic="room", reason="the room is closed", code=4321)
            self.assertEqual(closed, {"closed": 5, "done": True})
            with self.assertRaises(ConnectionClosed) as raised:
                websocket.recv(timeout=SECONDS_MAX)
            self.assertEqual((raised.exception.rcvd.code, raised.exception.rcvd.reason), (4321, "the room is closed"))
        self.assertEqual(read_to_end(line), b"")
        self.assertEqual(call.status(), grpc.StatusCode.ABORTED)
        self.assertEqual(call.call.details(), "the room is closed")
        events.communicate(timeout=SECONDS_MAX)
        lines.communicate(timeout=SECONDS_MAX)
        self.assertEqual((events.returncode, lines.returncode), (0, 0), "both end as they should")

    def test_a_stream_is_kicked_and_its_connection_stays(self):
        with Peer(server.http_port) as peer:
            stream = peer.request("GET", "/topics/borne", fields=[("accept", "text/event-stream")])
            until("it is there", lambda: len(of("borne")) == 1)
            one = of("borne")[0]
            self.assertEqual((one["protocol"], one["stream"]), ("sse", stream))
            carrier = api(f"/api/connections/{one['carrier']}")
            self.assertEqual((carrier["protocol"], carrier["streams"]), ("http2", 1))
            self.assertEqual(api(f"/api/connections/{one['id']}", "--request", "DELETE"), {"closed": 1, "done": True})
            self.assertEqual(peer.answer(stream).status, 200)
            self.assertEqual(peer.ask("POST", "/echo", body=b"still here").body, b"still here")


class Traces(unittest.TestCase):
    def test_a_topic_is_watched_by_lines(self):
        url = f"http://127.0.0.1:{server.admin_port}/api/trace?topic=watched&stream=1"
        with subprocess.Popen(["curl", "--silent", "--no-buffer", url], stdout=subprocess.PIPE, text=True) as watcher:
            read = lambda: json.loads(json.loads(watcher.stdout.readline())["text"])  # noqa: E731
            self.assertEqual(read()["event"], "tracing")
            place = post("/api/publish", topic="watched", text="hello")
            said = read()
            self.assertEqual((said["event"], said["offset"], said["epoch"]), ("published", 1, place["epoch"]))
            watcher.terminate()


class Refusals(unittest.TestCase):
    def test_a_form_and_another_site_change_nothing(self):
        for arguments, status in (
            (("--data", "{}"), 415),
            (("--header", "Content-Type: text/plain", "--data", "{}"), 415),
            (("--header", "Origin: https://evil.example", "--header", "X-Holdline: 1", "--data", "{}"), 403),
            (("--header", "Host: evil.example", "--header", "X-Holdline: 1", "--data", "{}"), 403),
            (("--header", "X-Holdline: 1", "--data", "{}"), 400),
        ):
            got, body = curl("/api/kick", *arguments)
            self.assertEqual(got, status, body)
            check_error(body)


if __name__ == "__main__":
    unittest.main()
