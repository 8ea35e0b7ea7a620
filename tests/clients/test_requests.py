"""The Python package requests: streams, long polls, publishing on one connection."""

import json
import threading
import unittest
from unittest import mock

import requests
import urllib3

from http_answers import cursor, events
from server import HTTP, Server

SECONDS_MAX = 15
MESSAGES = 1000


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server(listeners=(HTTP,), HOLDLINE_LIMITS_KEEP_ALIVE_REQUESTS_MAX=10 * MESSAGES))


def url(path):
    return f"http://127.0.0.1:{server.http_port}{path}"


def post(session, topic, text):
    answer = session.post(url(f"/topics/{topic}"), data=text.encode(), timeout=SECONDS_MAX)
    answer.raise_for_status()
    return answer.json()


def publish(topic, count):
    """Publishes `0`, `1`, ... on one connection: the answers."""
    with requests.Session() as session:
        return [post(session, topic, f"{number}") for number in range(count)]


def counting_connections():
    """While this is entered: what has been asked to connect."""
    connect = urllib3.util.connection.create_connection
    return mock.patch("urllib3.util.connection.create_connection", wraps=connect)


class Publish(unittest.TestCase):
    def test_a_thousand_on_one_connection(self):
        with counting_connections() as connect, requests.Session() as session:
            places = [post(session, "thousand", f"{number}") for number in range(MESSAGES)]
            self.assertEqual(connect.call_count, 1)
            self.assertEqual([place["offset"] for place in places], list(range(1, MESSAGES + 1)))
            kept = session.get(url("/topics/thousand/history"), timeout=SECONDS_MAX).json()
        self.assertEqual([message["text"] for message in kept], [f"{number}" for number in range(MESSAGES - 256, MESSAGES)])

    def test_a_session_goes_on_after_its_connection_had_all_it_may_have(self):
        settings = {"HOLDLINE_LIMITS_KEEP_ALIVE_REQUESTS_MAX": 10}
        with Server(listeners=(HTTP,), **settings) as own, counting_connections() as connect, requests.Session() as session:
            for number in range(35):
                # An answer that is kept would keep its connection open, and the server waiting.
                self.assertEqual(self.post_to(own, session), (number + 1, "close" if number % 10 == 9 else None))
            self.assertEqual(connect.call_count, 4)

    def post_to(self, own, session):
        answer = session.post(f"http://127.0.0.1:{own.http_port}/topics/t", data="x", timeout=SECONDS_MAX)
        return answer.json()["offset"], answer.headers.get("connection")

    def test_a_generator_is_sent_in_chunks(self):
        answer = requests.post(url("/topics/generator"), data=(b"part" for _ in range(100)), timeout=SECONDS_MAX)
        self.assertEqual(answer.json()["offset"], 1)
        (message,) = requests.get(url("/topics/generator/history"), timeout=SECONDS_MAX).json()
        self.assertEqual(message["text"], "part" * 100)

    def test_bytes_and_json(self):
        binary = {"Content-Type": "application/octet-stream"}
        requests.post(url("/topics/kinds"), data=b"\x00\xff", headers=binary, timeout=SECONDS_MAX).raise_for_status()
        requests.post(url("/topics/kinds"), json={"a": "ü"}, timeout=SECONDS_MAX).raise_for_status()
        first, second = requests.get(url("/topics/kinds/history"), timeout=SECONDS_MAX).json()
        self.assertEqual((first["base64"], json.loads(second["text"])), ("AP8=", {"a": "ü"}))


class Read(unittest.TestCase):
    def stream(self, path, **headers):
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.enterContext(requests.get(url(path), headers=fields, stream=True, timeout=SECONDS_MAX))
        self.assertEqual(answer.status_code, 200, answer.headers)
        answer.encoding = "utf-8"
        return answer.iter_lines(chunk_size=1, decode_unicode=True)

    def events(self, path, **headers):
        return events(self.stream(path, Accept="text/event-stream", **headers))

    def test_events_during_publishing_with_resumes(self):
        """A client that goes and comes back again and again ends with exactly what was published."""
        first = publish("resumed", 1)[0]
        publisher = threading.Thread(target=publish, args=("resumed", MESSAGES))
        got, last = [], cursor(first)
        publisher.start()
        while len(got) < MESSAGES:
            # A client is never away for so long that history runs out: it comes back at once.
            for count, event in enumerate(self.events("/topics/resumed", Last_Event_ID=last)):
                self.assertEqual(event.name, "message", event)
                got.append(int(event.data))
                last = event.cursor
                if count == 60 or len(got) == MESSAGES:
                    break
        publisher.join()
        self.assertEqual(got, list(range(MESSAGES)))

    def test_lines_during_publishing(self):
        lines = self.stream("/topics/lines?stream=1&history=1")
        publisher = threading.Thread(target=publish, args=("lines", 300))
        publisher.start()
        got = [json.loads(next(lines))["text"] for _ in range(300)]
        publisher.join()
        self.assertEqual(got, [f"{number}" for number in range(300)])

    def test_long_polls_during_publishing(self):
        with counting_connections() as connect, requests.Session() as session:
            start = session.get(url("/topics/polled?wait=0s"), timeout=SECONDS_MAX)
            self.assertEqual(start.json(), [])
            after, got = start.headers["Holdline-Cursor"], []
            publisher = threading.Thread(target=publish, args=("polled", MESSAGES))
            publisher.start()
            while len(got) < MESSAGES:
                answer = session.get(url("/topics/polled"), params={"wait": "10s", "since": after}, timeout=SECONDS_MAX)
                messages = answer.json()
                self.assertGreater(len(messages), 0, "a wait that ended in vain")
                got += [int(message["text"]) for message in messages]
                after = answer.headers["Holdline-Cursor"]
                self.assertEqual(after, cursor(messages[-1]))
            publisher.join()
            # The publisher's, and one for all polls.
            self.assertEqual(connect.call_count, 2)
        self.assertEqual(got, list(range(MESSAGES)))

    def test_a_history_too_short_is_said(self):
        """Where messages were lost there is one reset, and what follows it is whole."""
        places = publish("short", 300)
        stream = self.events("/topics/short", Last_Event_ID=cursor(places[9]))
        reset = next(stream)
        self.assertEqual((reset.name, json.loads(reset.data)["reset"]), ("reset", True))
        self.assertEqual(reset.cursor, cursor(json.loads(reset.data)))
        offset = json.loads(reset.data)["offset"]
        publish("short", 1)
        event = next(stream)
        self.assertEqual(int(event.cursor.split(":")[1]), offset + 1)
