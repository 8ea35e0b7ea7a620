"""/metrics as others read it: Prometheus' own checker where it is installed, and the parsers of its Python client."""

import shutil
import subprocess
import sys
import unittest

import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain
from server import HTTP, Server
from websockets.sync.client import connect

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def scrape_url(server):
    """The admin listener is told last."""
    urls = [line.removeprefix("listening on ") for line in server.said if line.startswith("listening on ")]
    return urls[-1].rstrip("/") + "/metrics"


class Metrics(unittest.TestCase):
    def test_both_formats_are_read_and_say_the_same(self):
        with Server(listeners=(HTTP,)) as server:
            with connect(server.ws("/echo")) as client:
                client.send("hello")
                self.assertEqual(client.recv(), "hello")
                url = scrape_url(server)
                text = requests.get(url, timeout=10)
                other = requests.get(url, timeout=10, headers={"Accept": OPEN_METRICS})
            self.assertTrue(text.headers["Content-Type"].startswith("text/plain; version=0.0.4"))
            self.assertTrue(other.headers["Content-Type"].startswith("application/openmetrics-text"))
            families = {family.name: family for family in plain(text.text)}
            self.assertEqual(families.keys(), {family.name for family in open_metrics(other.text)})
            sent = families["holdline_protocol_messages_sent"].samples
            self.assertEqual({s.labels["protocol"]: s.value for s in sent if s.value}, {"websocket": 1})
            turns = [s for s in families["holdline_turn_seconds"].samples if s.name.endswith("_count")]
            self.assertGreater(sum(s.value for s in turns), 0)
            self.assertTrue(all(family.documentation for family in families.values()))

    def test_promtool_finds_nothing_to_say(self):
        if not shutil.which("promtool"):
            # It comes with the whole of Prometheus, which not every machine has; nobody must take that for a check.
            print("NOT CHECKED: /metrics by promtool, which is not here: apt-get install prometheus", file=sys.stderr)
            self.skipTest("NOT CHECKED: there is no promtool")
        with Server(listeners=(HTTP,)) as server:
            text = requests.get(scrape_url(server), timeout=10).text
        check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        self.assertEqual((check.returncode, check.stdout + check.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
