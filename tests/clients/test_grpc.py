"""gRPC by Python's grpcio, with stubs that its own tools make of our files: chats with members of every kind, statuses."""

import json
import os
import socket
import subprocess
import time
import unittest

import grpc
import websockets.sync.client
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from grpc_edge import SECONDS_MAX, Member, channel, edge, edge_grpc, payload
from h2_peer import Peer
from server import HTTP, LINE_TOPIC, Server

import health_pb2  # noqa: E402, made by grpc_edge
import health_pb2_grpc  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def setUpModule():
    global server, to, at
    server = unittest.enterModuleContext(Server(listeners=(HTTP, LINE_TOPIC)))
    to = unittest.enterModuleContext(channel(server.http_port))
    # Where grpc_member.js connects: host and port, and what it trusts over TLS.
    at = [f"127.0.0.1:{server.http_port}"]


def publish(topic, text, **more):
    return edge_grpc.EdgeStub(to).Publish(edge.PublishRequest(topic=topic, text=text, **more), timeout=SECONDS_MAX)


def subscribers(topic):
    return publish(topic, "?").subscribers


class Code(unittest.TestCase):
    def assertStatus(self, code, call, *arguments, **named):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, **named)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception


class Chat(Code):
    EACH = 50

    def test_members_of_every_kind(self):
        """Python and Node over gRPC, a WebSocket and a line of TCP: the same messages in the same order at the same places."""
        total = 4 * self.EACH
        python = Member(to)
        python.join("room")
        where, *trust = at
        command = ["node", os.path.join(HERE, "grpc_member.js"), where, "room", "node", str(self.EACH), str(total), *trust]
        node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(node.wait)
        self.addCleanup(node.kill)
        self.assertEqual(node.stdout.readline(), "ready\n")
        line = self.enterContext(socket.create_connection(("127.0.0.1", server.ports[LINE_TOPIC]), timeout=SECONDS_MAX))
        with websockets.sync.client.connect(server.ws("/topics/room")) as web:
            deadline = time.monotonic() + SECONDS_MAX
            # All four have joined when a publication finds them, which Node and Python do not count.
            while self.members() < 4:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            node.stdin.write("go\n")
            node.stdin.flush()
            for number in range(self.EACH):
                python.say(publish=edge.Publish(topic="room", text=f"python {number}"))
                web.send(f"web {number}")
                line.sendall(f"line {number}\n".encode())
            messages = python.messages(total)
            texts = [web.recv(timeout=SECONDS_MAX) for _ in range(total)]
        reader = line.makefile("rb")
        lines = [reader.readline().decode().rstrip("\n") for _ in range(total)]
        heard = json.loads(node.stdout.readline())
        places = [[str(message.cursor.epoch), str(message.cursor.offset), str(payload(message))] for message in messages]
        self.assertEqual(heard["messages"], places)
        self.assertEqual([text for _, _, text in places], texts)
        self.assertEqual(texts, lines)
        self.assertEqual([message.cursor.offset for message in messages], list(range(1, total + 1)))
        self.assertEqual(len({message.cursor.epoch for message in messages}), 1)
        for name in ("python", "node", "web", "line"):
            own = [text for text in texts if text.startswith(name)]
            self.assertEqual(own, [f"{name} {number}" for number in range(self.EACH)])
        mine = [int(offset) for _, offset, text in places if text.startswith("node")]
        self.assertEqual([int(place) for place in heard["places"]], mine)

    def members(self):
        with Peer(server.http_port) as peer:
            return json.loads(peer.ask("GET", "/topics/room/info").body)["subscribers"]


class Topics(Code):
    def member(self, **named):
        member = Member(to, **named)
        self.addCleanup(member.call.cancel)
        return member

    def test_a_publication_has_its_place(self):
        member = self.member()
        self.assertEqual(member.join("acks").cursor.offset, 0)
        for number in range(100):
            asked = member.say(publish=edge.Publish(topic="acks", text=f"{number}"))
            frames = dict(member.next() for _ in range(2))
            self.assertEqual(set(frames), {"published", "message"})
            place = frames["published"]
            self.assertEqual((place.id, place.published.cursor.offset, place.published.subscribers), (asked, number + 1, 1))
            self.assertEqual(frames["message"].message.cursor, place.published.cursor)
            self.assertLess(abs(frames["message"].message.time_ms / 1000 - time.time()), 60)

    def test_the_same_key_has_the_same_place(self):
        first = publish("keys", "once", idempotency_key="k")
        again = publish("keys", "once", idempotency_key="k")
        self.assertEqual((again.cursor, again.duplicate, first.duplicate), (first.cursor, True, False))

    def test_text_and_bytes(self):
        member = self.member()
        member.join("kinds")
        edge_grpc.EdgeStub(to).Publish(edge.PublishRequest(topic="kinds", binary=b"\x00\xff"))
        publish("kinds", "grüße")
        self.assertEqual([payload(message) for message in member.messages(2)], [b"\x00\xff", "grüße"])

    def test_messages_keep_their_trace(self):
        member = self.member()
        member.join("traces")
        call, frame = (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{span:016x}-00" for span in (1, 2))
        metadata = (("traceparent", call), ("tracestate", "a=b"))
        edge_grpc.EdgeStub(to).Publish(edge.PublishRequest(topic="traces", text="call"), metadata=metadata)
        member.expect_trace("call", call, "a=b")
        member.say(publish=edge.Publish(topic="traces", text="frame", traceparent=frame))
        member.expect_trace("frame", frame, "")
        publish("traces", "none")
        member.expect_trace("none", "", "")

    def test_history_and_since(self):
        places = [publish("past", f"{number}").cursor for number in range(20)]
        member = self.member()
        # The place that messages follow.
        self.assertEqual(member.join("past", history=5).cursor, places[-6])
        self.assertEqual([payload(message) for message in member.messages(5)], [f"{n}" for n in range(15, 20)])
        later = self.member()
        later.join("past", since=places[9])
        self.assertEqual([message.cursor for message in later.messages(10)], places[10:])
        publish("past", "live")
        self.assertEqual([payload(one.messages(1)[0]) for one in (member, later)], ["live", "live"])

    def test_what_is_lost_is_told(self):
        places = [publish("short", f"{number}").cursor for number in range(300)]
        member = self.member()
        member.say(subscribe=edge.Subscribe(topic="short", since=places[9]))
        frames = dict(member.next() for _ in range(2))
        self.assertEqual(set(frames), {"reset", "subscribed"})
        at = frames["reset"].reset.cursor.offset
        publish("short", "one more")
        rest = member.messages(301 - at)
        self.assertEqual([message.cursor.offset for message in rest], list(range(at + 1, 302)))

    def test_groups_share_the_work(self):
        members = [self.member() for _ in range(3)]
        for member in members:
            member.join("work", group="workers")
        for number in range(90):
            publish("work", f"{number}")
        found = []
        for member in members:
            part = member.messages(1)
            member.say(unsubscribe=edge.Unsubscribe(topic="work"))
            while (kind := member.next())[0] != "unsubscribed":
                part.append(kind[1].message)
            self.assertGreater(len(part), 0)
            found += [int(payload(message)) for message in part]
        # What a member had been given when it left is its own; all of it went to exactly one.
        self.assertEqual(sorted(set(found)), sorted(found))

    def test_without_its_own_echo_and_no_more(self):
        member = self.member()
        member.join("own", no_echo=True)
        member.say(publish=edge.Publish(topic="own", text="mine"))
        member.expect("published")
        publish("own", "yours")
        self.assertEqual(payload(member.messages(1)[0]), "yours")
        member.say(unsubscribe=edge.Unsubscribe(topic="own"))
        self.assertEqual(member.expect("unsubscribed").unsubscribed.topic, "own")
        self.assertEqual(subscribers("own"), 0)

    def test_a_frame_that_cannot_be_obeyed(self):
        member = self.member()
        for frame in ({"subscribe": edge.Subscribe(topic="a b")}, {"publish": edge.Publish(topic="", text="x")}, {}):
            asked = member.say(**frame)
            error = member.expect("error")
            self.assertEqual(error.id, asked)
            self.assertTrue(error.error.code and error.error.message, error)
        member.join("goes-on")

    def test_a_half_close_ends_when_nothing_can_come(self):
        member = self.member()
        member.say(publish=edge.Publish(topic="half", text="last"))
        frames = member.done()
        self.assertEqual([frame.WhichOneof("frame") for frame in frames], ["published"])
        self.assertEqual(member.call.code(), grpc.StatusCode.OK)

    def test_a_cancelled_call_leaves(self):
        members = [self.member() for _ in range(10)]
        for member in members:
            member.join("leaving")
        self.assertEqual(subscribers("leaving"), 10)
        for member in members:
            member.call.cancel()
        deadline = time.monotonic() + SECONDS_MAX
        while subscribers("leaving"):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def test_gzip(self):
        member = self.member(compression=grpc.Compression.Gzip)
        member.join("gzip")
        member.say(publish=edge.Publish(topic="gzip", text="zip " * 10_000))
        stub = edge_grpc.EdgeStub(to)
        stub.Publish(edge.PublishRequest(topic="gzip", text="zap " * 10_000), compression=grpc.Compression.Gzip)
        texts = sorted(payload(message) for message in member.messages(2))
        self.assertEqual(texts, ["zap " * 10_000, "zip " * 10_000])


class Echo(Code):
    def test_sizes_and_many_at_once(self):
        stub = edge_grpc.EdgeStub(to)
        sizes = [0, 1, 100, 16_384, 65_536, 1_000_000]
        sent = [edge.EchoMessage(payload=os.urandom(size)) for size in sizes * 3]
        self.assertEqual(list(stub.Echo(iter(sent), timeout=SECONDS_MAX)), sent)
        calls = []
        for call in range(90):
            own = [edge.EchoMessage(payload=f"{call} {number}".encode()) for number in range(20)]
            calls.append((own, stub.Echo(iter(own), timeout=SECONDS_MAX)))
        for own, call in calls:
            self.assertEqual(list(call), own)


class Statuses(Code):
    def unary(self, method, request=b"", **named):
        return to.unary_unary(method)(request, timeout=named.pop("seconds", SECONDS_MAX), **named)

    def test_methods_that_are_not_there(self):
        for method in ("/holdline.v1.Edge/Nothing", "/nobody.Knows/It", "/holdline.v1.edge/Publish"):
            self.assertStatus(grpc.StatusCode.UNIMPLEMENTED, self.unary, method)

    def test_a_message_that_is_none(self):
        error = self.assertStatus(grpc.StatusCode.INTERNAL, self.unary, "/holdline.v1.Edge/Publish", b"\xff\xff\xff")
        self.assertTrue(error.details())

    def test_a_topic_that_cannot_be(self):
        self.assertStatus(grpc.StatusCode.INVALID_ARGUMENT, publish, "a b", "x")

    def test_messages_over_the_limit(self):
        big = edge.PublishRequest(topic="t", binary=bytes(1024 * 1024 + 1))
        stub = edge_grpc.EdgeStub(to)
        self.assertStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, stub.Publish, big)
        # Small as it comes, large when it is inflated.
        self.assertStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, stub.Publish, big, compression=grpc.Compression.Gzip)

    def test_an_encoding_that_nobody_knows(self):
        with Peer(server.http_port) as peer:
            answer = peer.ask("POST", "/holdline.v1.Edge/Publish", b"", [*GRPC, ("grpc-encoding", "snappy")])
            self.assertEqual((answer.status, fields(answer)["grpc-status"]), (200, "12"))
            self.assertIn("gzip", fields(answer)["grpc-accept-encoding"])

    def test_deadlines(self):
        self.assertEqual(Member(to, seconds_max=0.2).status(), grpc.StatusCode.DEADLINE_EXCEEDED)
        # And the server's own clock.
        with Peer(server.http_port) as peer:
            began = time.monotonic()
            stream = peer.request("POST", "/holdline.v1.Edge/Connect", fields=[*GRPC, ("grpc-timeout", "300m")], ends=False)
            answer = peer.answers[stream]
            peer.until(lambda: answer.ended or answer.reset is not None)
            self.assertEqual(fields(answer).get("grpc-status"), "4", (answer.fields, answer.trailers, answer.reset))
            self.assertTrue(0.25 < time.monotonic() - began < 2)

    def test_who_does_not_read_hears_why(self):
        """The rest of a message that it has no window for does not hold the status back."""
        limits = {"HOLDLINE_LIMITS_QUEUE_BYTES_MAX": "16KiB", "HOLDLINE_LIMITS_QUEUE_STALL_TIMEOUT": "1s"}
        with Server(listeners=(HTTP,), **limits) as own, channel(own.http_port) as other:
            with Peer(own.http_port, window=1000, credits=False) as peer:
                wish = edge.ClientFrame(subscribe=edge.Subscribe(topic="slow")).SerializeToString()
                body = b"\0" + len(wish).to_bytes(4, "big") + wish
                stream = peer.request("POST", "/holdline.v1.Edge/Connect", body, GRPC, ends=False)
                answer = peer.answers[stream]
                peer.until(lambda: answer.body)
                for _ in range(3):
                    request = edge.PublishRequest(topic="slow", text="x" * 20_000)
                    edge_grpc.EdgeStub(other).Publish(request, timeout=SECONDS_MAX)
                peer.until(lambda: answer.ended or answer.reset is not None)
                self.assertEqual(answer.trailers, {"grpc-status": "8", "grpc-message": "you read too slowly"})
                self.assertLessEqual(len(answer.body), 1000)

    def test_what_is_no_call(self):
        with Peer(server.http_port) as peer:
            answer = peer.ask("POST", "/holdline.v1.Edge/Publish", b"x", [("content-type", "text/plain")])
            self.assertEqual(answer.status, 415)
            # Also to one that waits for an answer before it says all.
            stream = peer.request("POST", "/holdline.v1.Edge/Connect", fields=[("content-type", "application/json")], ends=False)
            answer = peer.answers[stream]
            began = time.monotonic()
            peer.until(lambda: answer.ended or answer.reset is not None)
            self.assertEqual((answer.status, json.loads(answer.body)["error"]["code"]), (415, "unsupported_media_type"))
            self.assertLess(time.monotonic() - began, 2)
            broken = peer.ask("POST", "/holdline.v1.Edge/Publish", b"\x00\x00\x00\x00\x09half", GRPC)
            self.assertEqual(fields(broken)["grpc-status"], "13", broken.trailers)
            flagged = peer.ask("POST", "/holdline.v1.Edge/Publish", b"\x01\x00\x00\x00\x00", GRPC)
            self.assertEqual(fields(flagged)["grpc-status"], "13", flagged.trailers)


GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


def fields(answer):
    """Those of the head and of the trailers."""
    return {**answer.fields, **answer.trailers}


class Health(Code):
    SERVING = health_pb2.HealthCheckResponse.SERVING
    NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

    def test_check(self):
        stub = health_pb2_grpc.HealthStub(to)
        for service in ("", "holdline.v1.Edge"):
            self.assertEqual(stub.Check(health_pb2.HealthCheckRequest(service=service)).status, self.SERVING)
        self.assertStatus(grpc.StatusCode.NOT_FOUND, stub.Check, health_pb2.HealthCheckRequest(service="nobody.knows"))

    def test_a_drain_is_told(self):
        """Health hears of it at once, long before most connections have to go; calls then hear when to come again."""
        with Server(listeners=(HTTP,), drain="5s") as own:
            channels = [channel(own.http_port) for _ in range(4)]
            stubs = [health_pb2_grpc.HealthStub(each) for each in channels]
            request = health_pb2.HealthCheckRequest()
            watches = [stub.Watch(request, timeout=SECONDS_MAX) for stub in stubs]
            self.assertEqual([next(watch).status for watch in watches], [self.SERVING] * 4)
            member = Member(channels[0])
            member.join("drained")
            own.drains()
            began = time.monotonic()
            self.assertEqual([next(watch).status for watch in watches], [self.NOT_SERVING] * 4)
            self.assertLess(time.monotonic() - began, 1)
            self.assertEqual(stubs[-1].Check(request).status, self.NOT_SERVING)
            self.assertEqual(member.status(), grpc.StatusCode.UNAVAILABLE)
            self.assertRegex(member.call.details(), "^the server is going away; retry after [0-9]+ ms$")


class Reflection(Code):
    def test_a_client_needs_no_file(self):
        database = ProtoReflectionDescriptorDatabase(to)
        self.assertLessEqual({"holdline.v1.Edge", "grpc.health.v1.Health"}, set(database.get_services()))
        service = DescriptorPool(database).FindServiceByName("holdline.v1.Edge")
        self.assertEqual({method.name for method in service.methods}, {"Connect", "Publish", "Presence", "Echo"})
        self.assertEqual(service.methods_by_name["Publish"].input_type.full_name, "holdline.v1.PublishRequest")
