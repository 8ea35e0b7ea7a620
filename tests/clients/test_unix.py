"""HTTP at a Unix socket: curl and websockets, as a proxy or an app on the same machine comes in."""

import asyncio
import json
import os
import subprocess
import tempfile
import unittest

import websockets.asyncio.client as ws

from server import HTTP, AsyncTest, Server

SECONDS_MAX = 15


def setUpModule():
    global server, path
    path = os.path.join(unittest.enterModuleContext(tempfile.TemporaryDirectory()), "edge.sock")
    server = unittest.enterModuleContext(Server(listeners=(HTTP, f"unix://{path}")))


def curl(target, *arguments):
    command = ["curl", "--silent", "--show-error", "--max-time", str(SECONDS_MAX), "--unix-socket", path, *arguments]
    return subprocess.Popen([*command, f"http://edge.example{target}"], stdout=subprocess.PIPE, text=True)


class Curl(unittest.TestCase):
    def answer(self, *arguments):
        process = curl(*arguments)
        said, _ = process.communicate(timeout=2 * SECONDS_MAX)
        self.assertEqual(process.returncode, 0)
        return said

    def test_get_and_post(self):
        self.assertEqual(self.answer("/", "--output", "/dev/null", "--write-out", "%{http_code}"), "200")
        self.assertEqual(self.answer("/echo", "--data", "hello"), "hello")
        place = json.loads(self.answer("/topics/curl", "--data", "kept"))
        self.assertEqual([one["text"] for one in json.loads(self.answer("/topics/curl/history"))], ["kept"], place)

    def test_http2_with_prior_knowledge(self):
        version = self.answer("/topics/t/info", "--http2-prior-knowledge", "--output", "/dev/null", "-w", "%{http_version}")
        self.assertEqual(version, "2")

    def test_server_sent_events(self):
        with curl("/topics/events?history=10", "--no-buffer", "--header", "Accept: text/event-stream") as stream:
            self.answer("/topics/events", "--data", "hello")
            while "data: hello\n" not in (line := stream.stdout.readline()):
                self.assertNotEqual(line, "", "the stream ended")
            stream.terminate()


class WebSockets(AsyncTest):
    async def test_a_topic_is_the_same_by_either_way(self):
        async with (
            asyncio.timeout(SECONDS_MAX),
            ws.unix_connect(path, "ws://localhost/topics/both") as local,
            ws.connect(server.ws("/topics/both")) as far,
        ):
            await local.send("from here")
            self.assertEqual([await local.recv(), await far.recv()], ["from here"] * 2)
            await far.send("from there")
            self.assertEqual([await local.recv(), await far.recv()], ["from there"] * 2)


if __name__ == "__main__":
    unittest.main()
