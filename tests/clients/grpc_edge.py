"""The services of proto/ as grpcio-tools makes them of the files, and a member of topics over one call."""

import pathlib
import queue
import sys

import grpc
from grpc_tools import protoc

SECONDS_MAX = 20
REPO = pathlib.Path(__file__).resolve().parents[2]
STUBS = REPO / "tests" / ".env" / "stubs"


def make_stubs():
    """Writes the modules anew, so that they are never older than the files."""
    STUBS.mkdir(parents=True, exist_ok=True)
    # Health not as `grpc.health.v1`: that would be inside of grpcio's own package.
    for root, file in (("", "holdline/v1/edge.proto"), ("grpc/health/v1", "health.proto")):
        out = [f"--python_out={STUBS}", f"--grpc_python_out={STUBS}"]
        status = protoc.main(["protoc", f"-I{REPO / 'proto' / root}", *out, file])
        assert status == 0, f"protoc ended with {status}"
    sys.path.insert(0, str(STUBS))


make_stubs()

from holdline.v1 import edge_pb2 as edge  # noqa: E402
from holdline.v1 import edge_pb2_grpc as edge_grpc  # noqa: E402


def channel(port, **options):
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[(f"grpc.{name}", value) for name, value in options.items()])


class Member:
    """One call of Connect. What a member waits for longer than SECONDS_MAX ends the call, and the test."""

    def __init__(self, to, seconds_max=SECONDS_MAX, **named):
        self.asked, self.id = queue.Queue(), 0
        self.call = edge_grpc.EdgeStub(to).Connect(iter(self.asked.get, None), timeout=seconds_max, **named)

    def say(self, **frame):
        self.id += 1
        self.asked.put(edge.ClientFrame(id=self.id, **frame))
        return self.id

    def next(self):
        """What came next: its kind, and the frame."""
        frame = next(self.call)
        return frame.WhichOneof("frame"), frame

    def expect(self, kind):
        found, frame = self.next()
        assert found == kind, f"{kind} was due, not {frame}"
        return frame

    def expect_trace(self, text, parent, state):
        """The next message, past what answers publications."""
        found, frame = self.next()
        while found == "published":
            found, frame = self.next()
        assert (frame.message.text, frame.message.traceparent, frame.message.tracestate) == (text, parent, state), frame

    def join(self, topic, **how):
        self.say(subscribe=edge.Subscribe(topic=topic, **how))
        return self.expect("subscribed").subscribed

    def messages(self, count):
        """So many messages; what answers publications may come between."""
        found = []
        while len(found) < count:
            kind, frame = self.next()
            assert kind in ("message", "published"), frame
            found += [frame.message] if kind == "message" else []
        return found

    def done(self):
        """Says no more; the frames until the call's end."""
        self.asked.put(None)
        return list(self.call)

    def status(self):
        """How the call ends, whatever comes before."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError:
            pass
        return self.call.code()


def payload(message):
    """A message's text or bytes."""
    return getattr(message, message.WhichOneof("payload"))
