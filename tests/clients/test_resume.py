"""Past messages where they are not HTTP's: WebSockets that read JSON, and nc."""

import asyncio
import base64
import json
import subprocess
import unittest

from websockets.asyncio.client import connect

from http_answers import cursor
from server import HTTP, LINE_ANY_TOPIC, AsyncTest, Server

SECONDS_MAX = 10


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server(listeners=(HTTP, LINE_ANY_TOPIC)))


async def receive(ws):
    """The next message, which is JSON in a text frame."""
    message = await asyncio.wait_for(ws.recv(), SECONDS_MAX)
    assert isinstance(message, str), message
    return json.loads(message)


def open_json(topic, query=""):
    return connect(server.ws(f"/topics/{topic}?format=json{query}"))


class WebSockets(AsyncTest):
    async def publish(self, topic, *messages):
        """Publishes over another WebSocket: the messages as they came to it."""
        async with open_json(topic) as ws:
            got = []
            for message in messages:
                await ws.send(message)
                got.append(await receive(ws))
            return got

    async def test_a_message_in_json(self):
        text, binary = await self.publish("json", "grüße", b"\x00\xff")
        self.assertEqual(list(text), ["topic", "epoch", "offset", "time", "text"])
        self.assertEqual((text["topic"], text["offset"], text["text"]), ("json", 1, "grüße"))
        self.assertEqual((binary["offset"], base64.b64decode(binary["base64"])), (2, b"\x00\xff"))

    async def test_resume_during_publishing(self):
        """A client that drops and comes back ends with exactly what was published."""
        async with connect(server.ws("/topics/resumed?echo=0")) as publisher:
            (first,) = await self.publish("resumed", "first")
            last, got = cursor(first), []

            async def publish():
                for number in range(1000):
                    await publisher.send(f"{number}")
                    if number % 20 == 0:
                        await asyncio.sleep(0.005)

            task = asyncio.ensure_future(publish())
            while len(got) < 1000:
                async with open_json("resumed", f"&since={last}&echo=0") as ws:
                    for _ in range(min(70, 1000 - len(got))):
                        message = await receive(ws)
                        self.assertNotIn("reset", message)
                        got.append(int(message["text"]))
                        last = cursor(message)
                    # No good-bye: what was on its way is lost.
                    ws.transport.abort()
            await task
        self.assertEqual(got, list(range(1000)))

    async def test_what_is_lost_is_said(self):
        await self.publish("lost", "x")
        async with open_json("lost", "&since=1:1") as ws:
            reset = await receive(ws)
            self.assertEqual(list(reset), ["topic", "epoch", "offset", "reset"])
            self.assertEqual((reset["topic"], reset["reset"]), ("lost", True))
            await ws.send("y")
            self.assertEqual((await receive(ws))["offset"], reset["offset"] + 1)

    async def test_history_in_bare_payloads(self):
        await self.publish("bare", "0", "1", b"2")
        async with connect(server.ws("/topics/bare?history=2")) as ws:
            self.assertEqual([await asyncio.wait_for(ws.recv(), SECONDS_MAX) for _ in range(2)], ["1", b"2"])


class Netcat(unittest.TestCase):
    def expect(self, lines, *said):
        """nc says these lines, and reads those first of all."""
        command = ["nc.openbsd", "127.0.0.1", str(server.ports[LINE_ANY_TOPIC])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            process.stdin.write("".join(f"{line}\n" for line in said))
            process.stdin.flush()
            got = [process.stdout.readline().rstrip("\n") for _ in lines]
            process.kill()
        self.assertEqual(got, lines)

    def test_the_last_messages(self):
        self.expect(["0", "1", "2"], "nc", "0", "1", "2")
        self.expect(["1", "2", "new"], "nc history=2", "new")
        self.expect(["0", "1", "2", "new"], "nc history=10&echo=0", "unheard", "unheard")
