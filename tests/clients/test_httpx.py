"""The Python package httpx: many streams of one asynchronous client."""

import asyncio
import json
import unittest

import httpx

from http_answers import cursor, events
from server import HTTP, AsyncTest, Server

SECONDS_MAX = 15
STREAMS = 50
MESSAGES = 200


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server(listeners=(HTTP,)))


def client():
    limits = httpx.Limits(max_connections=2 * STREAMS)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", limits=limits, timeout=SECONDS_MAX)


async def post(http, topic, text):
    answer = await http.post(f"/topics/{topic}", content=text)
    answer.raise_for_status()
    return answer.json()


async def publish(http, topic, count=MESSAGES):
    return [await post(http, topic, f"{number}") for number in range(count)]


async def until_subscribed(http, topic, count):
    async with asyncio.timeout(SECONDS_MAX):
        while (await http.get(f"/topics/{topic}/info")).json()["subscribers"] < count:
            await asyncio.sleep(0.01)


async def read_events(http, topic, count, **fields):
    """The next so many events of a stream."""
    headers = {"Accept": "text/event-stream"} | fields
    lines = []
    async with http.stream("GET", f"/topics/{topic}", headers=headers) as answer:
        assert answer.status_code == 200, answer
        assert answer.headers["content-type"] == "text/event-stream", answer.headers
        async for line in answer.aiter_lines():
            lines.append(line)
            if line == "" and len(got := list(events(lines))) == count:
                return got


async def read_lines(http, topic, count):
    got = []
    async with http.stream("GET", f"/topics/{topic}", params={"stream": "1"}) as answer:
        async for line in answer.aiter_lines():
            got.append(json.loads(line))
            if len(got) == count:
                return got


async def poll(http, topic, after, count):
    """Polls until it has so many messages."""
    got = []
    while len(got) < count:
        answer = await http.get(f"/topics/{topic}", params={"wait": "10s", "since": after})
        after = answer.headers["holdline-cursor"]
        got += answer.json()
    return got


class Streams(AsyncTest):
    async def test_fifty_streams_and_pollers_at_once(self):
        """Every reader in every transport gets all of it, in order, while it is published."""
        async with client() as http:
            start = (await http.get("/topics/many?wait=0s")).headers["holdline-cursor"]
            readers = [read_events(http, "many", MESSAGES) for _ in range(STREAMS // 2)]
            readers += [read_lines(http, "many", MESSAGES) for _ in range(STREAMS // 2)]
            pollers = [poll(http, "many", start, MESSAGES) for _ in range(5)]
            tasks = [asyncio.ensure_future(reader) for reader in readers]
            await until_subscribed(http, "many", STREAMS)
            tasks += [asyncio.ensure_future(poller) for poller in pollers]
            places = await publish(http, "many")
            texts = [f"{number}" for number in range(MESSAGES)]
            results = await asyncio.wait_for(asyncio.gather(*tasks), SECONDS_MAX)
            for got in results[: STREAMS // 2]:
                self.assertEqual([event.data for event in got], texts)
                self.assertEqual([event.cursor for event in got], [cursor(place) for place in places])
            for got in results[STREAMS // 2 :]:
                self.assertEqual([message["text"] for message in got], texts)
                self.assertEqual([cursor(message) for message in got], [cursor(place) for place in places])

    async def test_resume_by_the_last_id(self):
        async with client() as http:
            places = await publish(http, "resumed", 20)
            got = await read_events(http, "resumed", 5, **{"Last-Event-ID": cursor(places[9])})
            self.assertEqual([event.data for event in got], ["10", "11", "12", "13", "14"])
            got = await read_events(http, "resumed", 5, **{"Last-Event-ID": got[-1].cursor})
            self.assertEqual([event.data for event in got], ["15", "16", "17", "18", "19"])

    async def test_readers_who_leave_are_gone(self):
        async with client() as http:
            await post(http, "left", "x")
            tasks = [asyncio.ensure_future(read_events(http, "left", 1)) for _ in range(STREAMS)]
            await until_subscribed(http, "left", STREAMS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(SECONDS_MAX):
                while (await post(http, "left", "x"))["subscribers"] > 0:
                    await asyncio.sleep(0.05)

    async def test_posts_at_once_are_each_there_once(self):
        async with client() as http:
            places = await asyncio.gather(*(post(http, "crowd", f"{number}") for number in range(MESSAGES)))
            self.assertEqual(sorted(place["offset"] for place in places), list(range(1, MESSAGES + 1)))
            kept = (await http.get("/topics/crowd/history")).json()
            by_offset = {place["offset"]: f"{number}" for number, place in enumerate(places)}
            self.assertEqual({message["offset"]: message["text"] for message in kept}, by_offset)
