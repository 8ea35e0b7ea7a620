"""Hooks as a receiver in Python hears them: requests, signatures by its own hmac, a chat over gRPC and a WebSocket."""

import http.server
import json
import pathlib
import queue
import re
import tempfile
import threading
import time
import unittest

from websockets.sync.client import connect

from grpc_edge import Member, channel, edge, edge_grpc
from server import HTTP, Server

SECONDS_MAX = 20
REPO = pathlib.Path(__file__).resolve().parents[2]
SECRET = "a secret of a receiver that nobody guesses"


def documented_verifier():
    """The lines that the docs tell receivers to copy."""
    code = re.search(r"```python\n(.*?)```", (REPO / "docs" / "hooks.md").read_text(), re.DOTALL)[1]
    found = {}
    exec(code, found)
    return found["verify"]


class Receiver(http.server.ThreadingHTTPServer):
    """Takes what it is told; the first request is answered with 503."""

    def __init__(self):
        self.told, self.refusals = queue.Queue(), 1
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/in"

    def events(self, is_whole):
        """The events until there are enough."""
        events, deadline = [], time.monotonic() + SECONDS_MAX
        while not is_whole(events):
            path, headers, body = self.told.get(timeout=max(0.1, deadline - time.monotonic()))
            assert path == "/in" and documented_verifier()(SECRET, headers["Holdline-Signature"], body), headers
            assert headers["Content-Type"] == "application/json" and headers["User-Agent"].startswith("Holdline/")
            batch = json.loads(body)
            assert "missed" not in batch, batch
            events += batch["events"]
        return events


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refused = self.server.refusals > 0
        self.server.refusals -= 1
        if not refused:
            self.server.told.put((self.path, self.headers, body))
        self.send_response(503 if refused else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Hooks(unittest.TestCase):
    def test_a_chat_is_told_signed_and_in_order(self):
        receiver = self.enterContext(Receiver())
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        self.addCleanup(receiver.shutdown)
        secret = self.enterContext(tempfile.NamedTemporaryFile("w"))
        secret.write(SECRET + "\n")
        secret.flush()
        settings = {
            "HOLDLINE_HOOKS_URL": receiver.url,
            "HOLDLINE_HOOKS_SECRET_FILE": secret.name,
            "HOLDLINE_HOOKS_EVENTS": "connect,disconnect,subscribe,unsubscribe,publish,occupied,vacated",
            "HOLDLINE_HOOKS_PAYLOAD": "true",
            "HOLDLINE_HOOKS_BATCH_DELAY": "20ms",
        }
        with Server(listeners=(HTTP,), **settings) as server:
            with channel(server.http_port) as to:
                member = Member(to)
                member.join("room")
                with connect(server.ws("/topics/room")) as web:
                    member.say(publish=edge.Publish(topic="room", text="over gRPC"))
                    self.assertEqual(web.recv(timeout=SECONDS_MAX), "over gRPC")
                    web.send("from the web")
                edge_grpc.EdgeStub(to).Publish(edge.PublishRequest(topic="room", text="unary"), timeout=SECONDS_MAX)
                member.call.cancel()
            events = receiver.events(lambda events: any(event["kind"] == "vacated" for event in events))
        by = {}
        for event in events:
            by.setdefault(event.get("protocol", event["kind"]), []).append(event)
        whole = ["connect", "subscribe", "unsubscribe", "disconnect"]
        self.assertEqual([event["kind"] for event in by["grpc"]], whole, "a unary call is no connection")
        self.assertEqual([event["kind"] for event in by["websocket"]], whole)
        self.assertEqual([event["text"] for event in by["publish"]], ["over gRPC", "from the web", "unary"])
        self.assertEqual([event["offset"] for event in by["publish"]], [1, 2, 3])
        self.assertEqual(by["publish"][0]["connection"], by["grpc"][0]["connection"])
        self.assertEqual(by["publish"][1]["connection"], by["websocket"][0]["connection"])
        self.assertEqual((by["websocket"][3]["reason"], by["websocket"][3]["code"]), ("normal", 1000))
        self.assertEqual((len(by["occupied"]), len(by["vacated"])), (1, 1))
        numbers = [int(event["id"].split("-")[1]) for event in events]
        self.assertEqual(numbers, sorted(set(numbers)))


if __name__ == "__main__":
    unittest.main()
