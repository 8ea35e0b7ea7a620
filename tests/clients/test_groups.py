"""A queue group of clients of every kind: each message goes to one of them."""

import asyncio
import unittest

import httpx
from websockets.asyncio.client import connect

from server import HTTP, LINE_ANY_TOPIC, AsyncTest, Server

SECONDS_MAX = 15
MESSAGES = 300


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server(listeners=(HTTP, LINE_ANY_TOPIC)))


def url(path):
    return f"http://127.0.0.1:{server.http_port}{path}"


class Groups(AsyncTest):
    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.http = await self.enterAsyncContext(httpx.AsyncClient(timeout=SECONDS_MAX))
        self.got, self.tasks = {}, []

    def take(self, member, text):
        self.got.setdefault(member, []).append(int(text))

    def start(self, reading):
        """Lets a member read until the test is over."""
        task = asyncio.ensure_future(reading)
        self.tasks.append(task)
        self.addAsyncCleanup(lambda: asyncio.gather(task, return_exceptions=True))
        self.addCleanup(task.cancel)
        return task

    async def websocket(self, member, topic, group):
        async with connect(server.ws(f"/topics/{topic}?group={group}")) as ws:
            async for text in ws:
                self.take(member, text)

    async def events(self, member, topic, group):
        async with httpx.AsyncClient(timeout=None) as http:
            accept = {"Accept": "text/event-stream"}
            async with http.stream("GET", url(f"/topics/{topic}?group={group}"), headers=accept) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        self.take(member, line[6:])

    async def netcat(self, member, topic, group):
        pipe = asyncio.subprocess.PIPE
        command = ["nc.openbsd", "127.0.0.1", str(server.ports[LINE_ANY_TOPIC])]
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        try:
            process.stdin.write(f"{topic} group={group}\n".encode())
            async for line in process.stdout:
                if line.strip():
                    self.take(member, line)
        finally:
            process.kill()
            await process.wait()

    async def post(self, topic, text):
        answer = await self.http.post(url(f"/topics/{topic}"), content=text)
        answer.raise_for_status()
        return answer.json()

    async def until(self, holds):
        async with asyncio.timeout(SECONDS_MAX):
            while not await holds():
                for task in self.tasks:
                    assert not task.done() or task.cancelled(), f"a member is gone: {task}"
                await asyncio.sleep(0.02)

    async def until_members(self, topic, count):
        async def are_there():
            return (await self.http.get(url(f"/topics/{topic}/info"))).json()["subscribers"] == count

        await self.until(are_there)

    async def until_all_came(self, count):
        async def came():
            return sum(map(len, self.got.values())) >= count

        await self.until(came)

    def all(self):
        return sorted(number for numbers in self.got.values() for number in numbers)

    async def test_each_message_goes_to_one_member(self):
        for member in ("first", "second"):
            self.start(self.websocket(member, "jobs", "workers"))
        self.start(self.events("events", "jobs", "workers"))
        self.start(self.netcat("nc", "jobs", "workers"))
        await self.until_members("jobs", 4)
        for number in range(MESSAGES):
            await self.post("jobs", f"{number}")
        await self.until_all_came(MESSAGES)
        # One that came twice would come now.
        await asyncio.sleep(0.3)
        self.assertEqual(self.all(), list(range(MESSAGES)))
        self.assertEqual(len(self.got), 4, f"a member without work: {list(self.got)}")
        for member, numbers in self.got.items():
            self.assertEqual(numbers, sorted(numbers), member)
            self.assertGreaterEqual(len(numbers), MESSAGES // 16, member)

    async def test_two_groups_and_a_subscriber_get_all_of_it_each(self):
        for member in ("a1", "a2"):
            self.start(self.websocket(member, "both", "a"))
        self.start(self.events("b1", "both", "b"))
        self.start(self.netcat("b2", "both", "b"))
        async with connect(server.ws("/topics/both")) as ws:
            await self.until_members("both", 5)
            for number in range(100):
                await self.post("both", f"{number}")
            heard = [int(await asyncio.wait_for(ws.recv(), SECONDS_MAX)) for _ in range(100)]
        await self.until_all_came(200)
        await asyncio.sleep(0.3)
        self.assertEqual(heard, list(range(100)))
        for group in ("a", "b"):
            numbers = sorted(number for member in (f"{group}1", f"{group}2") for number in self.got.get(member, []))
            self.assertEqual(numbers, list(range(100)), group)

    async def test_the_work_of_one_who_left_goes_to_others(self):
        leaver = self.start(self.websocket("leaver", "left", "workers"))
        self.start(self.websocket("stayer", "left", "workers"))
        await self.until_members("left", 2)
        for number in range(20):
            await self.post("left", f"{number}")
        await self.until_all_came(20)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        await self.until_members("left", 1)
        for number in range(20, 40):
            await self.post("left", f"{number}")
        await self.until_all_came(40)
        self.assertEqual(self.all(), list(range(40)))
        self.assertEqual(self.got["stayer"][-20:], list(range(20, 40)))
