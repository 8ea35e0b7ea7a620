"""The rules of topics as stock clients meet them: gRPC, HTTP and WebSockets, before and after a reload under their eyes."""

import os
import signal
import tempfile
import time
import unittest

import grpc
import requests
import websockets.exceptions
import websockets.sync.client

from grpc_edge import SECONDS_MAX, Member, channel, edge, edge_grpc
from server import HTTP, Server

RULES = """
[topics."news/*"]
publish = "nobody"

[topics."room/*"]
rate = 3
"""


class Rules(unittest.TestCase):
    def setUp(self):
        self.file = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "holdline.toml")
        self.write(RULES)
        self.server = self.enterContext(Server("--config", self.file, listeners=(HTTP,)))
        self.to = self.enterContext(channel(self.server.http_port))

    def write(self, text):
        with open(self.file, "w", encoding="utf-8") as file:
            file.write(text)

    def publish(self, topic, text="hi"):
        return edge_grpc.EdgeStub(self.to).Publish(edge.PublishRequest(topic=topic, text=text), timeout=SECONDS_MAX)

    def publish_in_time(self, topic, until_then, text="hi"):
        """The same as soon as it is taken; until then it is refused so."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            try:
                return self.publish(topic, text)
            except grpc.RpcError as error:
                self.assertEqual(error.code(), until_then)
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)

    def assertStatus(self, code, topic):
        with self.assertRaises(grpc.RpcError) as caught:
            self.publish(topic)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())

    def test_a_call_hears_why_it_was_not_published(self):
        self.assertStatus(grpc.StatusCode.PERMISSION_DENIED, "news/today")
        for _ in range(3):
            self.publish("room/1")
        self.assertStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, "room/1")
        self.assertEqual(self.publish("room/2").cursor.offset, 1, "another topic has a rate of its own")
        self.assertEqual(self.publish_in_time("room/1", grpc.StatusCode.RESOURCE_EXHAUSTED).cursor.offset, 4)

    def test_a_call_with_many_topics_goes_on(self):
        ask = [
            edge.ClientFrame(id=1, publish=edge.Publish(topic="news/today", text="spam")),
            edge.ClientFrame(id=2, publish=edge.Publish(topic="else", text="fine")),
        ]
        answers = {frame.id: frame for frame in edge_grpc.EdgeStub(self.to).Connect(iter(ask), timeout=SECONDS_MAX)}
        self.assertEqual(answers[1].error.code, "publish_not_allowed")
        self.assertEqual(answers[2].published.cursor.offset, 1)

    def test_http_and_websockets(self):
        url = f"http://127.0.0.1:{self.server.http_port}/topics/news/today"
        answer = requests.post(url, data="spam", timeout=SECONDS_MAX)
        self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (403, "publish_not_allowed"))
        with websockets.sync.client.connect(self.server.ws("/topics/news/today")) as web:
            web.send("spam")
            with self.assertRaises(websockets.exceptions.ConnectionClosed) as caught:
                web.recv(timeout=SECONDS_MAX)
            self.assertEqual(caught.exception.rcvd.code, 1008)
            self.assertEqual(caught.exception.rcvd.reason, "you may not publish to this topic")

    def test_a_reload_is_followed_by_calls_that_are_open(self):
        member = Member(self.to)
        member.join("news/today")
        self.write("")
        self.server.process.send_signal(signal.SIGHUP)
        self.publish_in_time("news/today", grpc.StatusCode.PERMISSION_DENIED, "true")
        self.assertEqual(member.messages(1)[0].text, "true")


if __name__ == "__main__":
    unittest.main()
