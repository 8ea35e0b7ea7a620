"""Everyone in a topic sees the same messages in the same order, none lost, none twice, whatever shard they are on."""

import asyncio
import hashlib
import json
import os
import unittest

from websockets.asyncio.client import connect

from server import HTTP, LINE_TOPIC, AsyncTest, Server

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS_MAX = 90
PUBLISHERS, MESSAGES = 2, 100  # of each library
TOTAL = 2 * PUBLISHERS * MESSAGES
SUBSCRIBERS = 500  # of each library
LINES = 20


class Order(AsyncTest):
    async def test_four_publishers_and_a_thousand_subscribers(self):
        with Server(listeners=(HTTP, LINE_TOPIC), shards=3) as server:
            async with asyncio.timeout(SECONDS_MAX):
                await self.check(server)

    async def check(self, server):
        url = server.ws("/topics/room")
        npm = await start_npm(url)
        clients = [await connect(url, max_queue=None) for _ in range(SUBSCRIBERS + PUBLISHERS)]
        for ws in clients:
            await (await ws.ping())
        lines = [await asyncio.open_connection("127.0.0.1", server.ports[LINE_TOPIC]) for _ in range(LINES)]
        await self.settle(clients, lines)

        npm.stdin.write(b"go\n")
        takers = [asyncio.ensure_future(take(ws)) for ws in clients]
        line_takers = [asyncio.ensure_future(take_lines(reader)) for reader, _ in lines]
        await asyncio.gather(*(publish(ws, f"pip-{index}") for index, ws in enumerate(clients[:PUBLISHERS])))
        lists = await asyncio.gather(*takers, *line_takers)
        answer = json.loads(await npm.stdout.readline())
        self.assertEqual(await npm.wait(), 0)

        self.assertEqual(len(lists[0]), TOTAL)
        self.assertEqual(sorted(lists[0]), sorted(due()), "lost or doubled")
        for publisher in {text.split()[0] for text in due()}:
            own = [text for text in lists[0] if text.split()[0] == publisher]
            self.assertEqual(own, [f"{publisher} {number}" for number in range(MESSAGES)], "a publisher's own order")
        for other in lists[1:]:
            self.assertEqual(other, lists[0])
        digest = hashlib.sha256("\n".join(lists[0]).encode()).hexdigest()
        self.assertEqual(answer["first"], lists[0])
        self.assertEqual(answer["digests"], [digest] * (SUBSCRIBERS + PUBLISHERS))
        for ws in clients:
            await ws.close()
        for _, writer in lines:
            writer.close()

    async def settle(self, clients, lines):
        """A raw connection has no handshake that tells when it is in the topic: each hears its own message first.

        These messages reach the others too, which forget them here. The npm half opens before and forgets likewise.
        """
        for index, (reader, writer) in enumerate(lines):
            hello = f"line {index} is here".encode()
            writer.write(hello + b"\n")
            while await reader.readuntil(b"\n") != hello + b"\n":
                pass
        last = f"line {LINES - 1} is here".encode()
        for ws in clients:
            while await ws.recv(decode=False) != last:
                pass
        for reader, _ in lines[:-1]:
            while await reader.readuntil(b"\n") != last + b"\n":
                pass


def due():
    return [f"{kind}-{index} {number}" for kind in ["pip", "npm"] for index in range(PUBLISHERS) for number in range(MESSAGES)]


async def start_npm(url):
    counts = [str(count) for count in (SUBSCRIBERS, PUBLISHERS, MESSAGES, TOTAL)]
    npm = await asyncio.create_subprocess_exec(
        "node",
        os.path.join(HERE, "ws_crowd.js"),
        url,
        *counts,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**22,
    )
    assert await npm.stdout.readline() == b"ready\n"
    return npm


async def publish(ws, name):
    for number in range(MESSAGES):
        await ws.send(f"{name} {number}")
        if number % 8 == 7:
            await asyncio.sleep(0)


async def take(ws):
    """All that is due, and whatever comes before a ping's answer on top of it."""
    texts = [await ws.recv() for _ in range(TOTAL)]
    await (await ws.ping())
    try:
        while True:
            texts.append(await asyncio.wait_for(ws.recv(), 0.05))
    except TimeoutError:
        return texts


async def take_lines(reader):
    return [(await reader.readuntil(b"\n"))[:-1].decode() for _ in range(TOTAL)]


if __name__ == "__main__":
    unittest.main()
