"""A holdline server of a test's own, and the ports it listens on."""

import asyncio
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
import unittest

READY_SECONDS_MAX = 20
STOP_SECONDS_MAX = 40

PROGRAM = os.environ.get("TEST_PROGRAM", "")
BACKEND = os.environ.get("TEST_BACKEND", "epoll")

HTTP = "http://127.0.0.1:0"
LINE_ECHO = "tcp://127.0.0.1:0?framing=line&app=echo"
LINE_TOPIC = "tcp://127.0.0.1:0?framing=line&app=topic&topic=room"
LENGTH_ECHO = "tcp://127.0.0.1:0?framing=length&app=echo"
LENGTH_TOPIC = "tcp://127.0.0.1:0?framing=length&app=topic&topic=room"
LINE_CHAT = "tcp://127.0.0.1:0?framing=line&app=chat&topic=lobby"
LINE_ANY_TOPIC = "tcp://127.0.0.1:0?framing=line&app=topic"
LISTENERS = (HTTP, LINE_ECHO, LINE_TOPIC, LINE_ANY_TOPIC, LENGTH_ECHO, LENGTH_TOPIC, LINE_CHAT)


def environment(**settings):
    """This process's environment without settings of a server, and then `settings`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDLINE_")}
    return kept | {name: str(value) for name, value in settings.items()}


class AsyncTest(unittest.IsolatedAsyncioTestCase):
    """Without the event loop's debug mode, which tells of every slow callback and is slow itself."""

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)


class Server:
    """Runs `holdline serve` from the start of a `with` block to its end.

    `ports` has the port that each entry of `listeners` got. Whatever the server says on its standard error is kept in
    `errors`. At the end of the block SIGTERM must end it with status 0, unless the test ended it itself.
    """

    def __init__(self, *flags, listeners=LISTENERS, shards=2, drain="1s", **settings):
        self.listeners = listeners
        self.command = [PROGRAM, "serve", "--backend", BACKEND, "--shards", str(shards), "--admin", "127.0.0.1:0"]
        self.command += ["--drain", drain]
        self.command += [part for url in listeners for part in ("--listen", url)]
        self.command += flags
        self.settings = settings
        self.errors = []
        self.signalled = False

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command,
            env=environment(**self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.said = self._until_ready()
            self.ports = self._ports()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            status = self.stop()
            assert kind or status == 0, f"status {status} after SIGTERM; it said:\n{self.said_wrong()}"
        for reader in self._readers:
            reader.join(timeout=1)
        self.process.stdout.close()
        self.process.stderr.close()

    def signal(self, number=signal.SIGTERM):
        """Asks it to end; one more ends it at once."""
        self.signalled = True
        self.process.send_signal(number)

    def stop(self, seconds_max=STOP_SECONDS_MAX):
        """SIGTERM, if it had none yet, and the exit status."""
        if not self.signalled:
            self.signal()
        try:
            return self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still there {seconds_max} s after SIGTERM") from None

    def drains(self, seconds_max=5):
        """Asks it to end and returns when it takes no more clients, which it does while it has some."""
        self.signal()
        deadline = time.monotonic() + seconds_max
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.http_port), timeout=1).close()
            except ConnectionError:
                break
            except TimeoutError:
                # While handshakes under way are finished, new ones are not answered: the next one is refused.
                pass
            assert time.monotonic() < deadline, f"takes clients {seconds_max} s after SIGTERM"
            time.sleep(0.01)
        assert self.process.poll() is None, "ended before its clients did"

    def said_wrong(self):
        """The last of its standard error."""
        return "".join(self.errors[-20:])

    @property
    def http_port(self):
        return self.ports[HTTP]

    def ws(self, path):
        return f"ws://127.0.0.1:{self.http_port}{path}"

    @staticmethod
    def _read(stream, put):
        for line in stream:
            put(line)
        put("")

    def _until_ready(self):
        lines, deadline = [], time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not ready within {READY_SECONDS_MAX} s; it said {lines}") from None
            if line == "":
                self._readers[1].join(timeout=1)
                raise AssertionError(f"ended before it was ready: {self.said_wrong()}")
            lines.append(line.rstrip("\n"))
            if lines[-1] == "ready":
                return lines

    def _ports(self):
        """Listener -> port, from `listening on URL` lines: first the listeners in the order of the flags, then the admin's."""
        found = [line.removeprefix("listening on ") for line in self.said if line.startswith("listening on ")]
        extra = len(found) - len(self.listeners)
        assert 0 <= extra <= 1, f"{len(self.listeners)} listeners and an admin's, but it said {self.said}"
        ports = {}
        for asked, url in zip(self.listeners, found):
            scheme = asked.split("://")[0]
            if scheme == "unix":
                assert asked == url, f"asked for {asked}, it listens on {url}"
                continue
            match = re.fullmatch(rf"{scheme}://127\.0\.0\.1:(\d+)\S*", url)
            assert match, f"asked for {asked}, it listens on {url}"
            assert int(match[1]) != 0, f"port 0 in {url}"
            ports[asked] = int(match[1])
        self.admin_port = int(re.search(r":(\d+)", found[-1].split("://")[1])[1]) if extra else None
        return ports


def run(*arguments, seconds_max=20, **settings):
    """Runs the program to its end: (exit status, standard output, standard error)."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
