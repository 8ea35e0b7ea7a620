"""Who is in a topic as stock clients see it: WebSockets, server-sent events, HTTP and gRPC, all in one room."""

import json
import os
import tempfile
import time
import unittest

import grpc
import requests
import websockets.sync.client

from grpc_edge import SECONDS_MAX, Member, channel, edge, edge_grpc
from server import HTTP, Server

RULES = """
[topics."room/*"]
presence = "members"

[topics."hall/*"]
presence = "count"
"""


class Presence(unittest.TestCase):
    def setUp(self):
        file = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "holdline.toml")
        with open(file, "w", encoding="utf-8") as written:
            written.write(RULES)
        self.server = self.enterContext(Server("--config", file, listeners=(HTTP,)))
        self.to = self.enterContext(channel(self.server.http_port))

    def get(self, path):
        return requests.get(f"http://127.0.0.1:{self.server.http_port}{path}", timeout=SECONDS_MAX)

    def wait_for(self, topic, names):
        deadline = time.monotonic() + SECONDS_MAX
        while (found := [one["name"] for one in self.get(f"/topics/{topic}/presence").json()["members"]]) != names:
            self.assertLess(time.monotonic(), deadline, f"{found}, not {names}")
            time.sleep(0.01)

    def websocket(self, path):
        return self.enterContext(websockets.sync.client.connect(self.server.ws(path)))

    def test_all_protocols_are_in_one_room(self):
        watcher = self.websocket("/topics/room/1?member=web&name=Web&presence=1")
        first = json.loads(watcher.recv(timeout=SECONDS_MAX))
        self.assertEqual(first["topic"], "room/1")
        events = requests.get(
            f"http://127.0.0.1:{self.server.http_port}/topics/room/1?member=sse&presence=1",
            headers={"Accept": "text/event-stream"}, stream=True, timeout=SECONDS_MAX)
        call = Member(self.to)
        call.say(subscribe=edge.Subscribe(topic="room/1", member="call", presence=True))
        self.wait_for("room/1", ["call", "sse", "Web"])

        known, count = set(), 0

        def learn(presence):
            nonlocal count
            if "members" in presence:
                known.clear()
            known.update(one["id"] for one in presence.get("members", []) + presence.get("joined", []))
            known.difference_update(one["id"] for one in presence.get("left", []))
            count = presence["count"]

        learn(first["presence"])
        while known != {"call", "sse", "web"}:
            learn(json.loads(watcher.recv(timeout=SECONDS_MAX))["presence"])
        self.assertEqual(count, 3)

        # First the list, and then who comes: it may have been on neither yet when it was told the first.
        met, is_first = set(), True
        while met != {"call", "sse", "web"}:
            kind, frame = call.next()
            if kind == "presence":
                self.assertEqual(frame.presence.list, is_first)
                is_first = False
                met.update(one.id for one in (*frame.presence.members, *frame.presence.joined))

        lines = events.iter_lines(chunk_size=1, decode_unicode=True)
        met = set()
        while met != {"call", "sse", "web"}:
            self.assertIn("event: presence", lines)
            told = json.loads(next(lines).removeprefix("data: "))["presence"]
            met.update(one["id"] for one in told.get("members", []) + told.get("joined", []))

        answer = edge_grpc.EdgeStub(self.to).Presence(edge.PresenceRequest(topic="room/1", limit=2), timeout=SECONDS_MAX)
        self.assertEqual((answer.count, [one.id for one in answer.members], answer.next), (3, ["call", "sse"], "member:sse"))
        events.close()
        while known != {"call", "web"}:
            learn(json.loads(watcher.recv(timeout=SECONDS_MAX))["presence"])
        call.call.cancel()
        while known != {"web"}:
            learn(json.loads(watcher.recv(timeout=SECONDS_MAX))["presence"])
        self.assertEqual(count, 1)

    def test_numbers_and_topics_without(self):
        watcher = self.websocket("/topics/hall/1?presence=1")
        self.assertEqual(json.loads(watcher.recv(timeout=SECONDS_MAX))["presence"], {"count": 1})
        others = [self.websocket("/topics/hall/1") for _ in range(5)]
        while json.loads(watcher.recv(timeout=SECONDS_MAX))["presence"] != {"count": 6}:
            pass
        self.assertEqual(self.get("/topics/hall/1/presence").json(), {"topic": "hall/1", "count": 6})
        self.assertEqual(len(others), 5)
        off = self.get("/topics/else/presence")
        self.assertEqual((off.status_code, off.json()["error"]["code"]), (404, "presence_off"))
        with self.assertRaises(grpc.RpcError) as caught:
            edge_grpc.EdgeStub(self.to).Presence(edge.PresenceRequest(topic="else"), timeout=SECONDS_MAX)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main()
