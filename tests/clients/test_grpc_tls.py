"""gRPC over TLS: the tests of test_grpc, whose calls from grpcio and grpc-js all go to an https:// listener here."""

import unittest

import grpc

import test_grpc
from authority import authority_for_module
from grpc_edge import SECONDS_MAX, Member, edge, edge_grpc
from server import HTTP, LINE_TOPIC, Server
from test_grpc import health_pb2, health_pb2_grpc

HTTPS = "https://127.0.0.1:0"


def secured(port, ca=None):
    """A channel to localhost that trusts what this authority signs."""
    credentials = grpc.ssl_channel_credentials(ca and ca.certificate.read_bytes())
    return unittest.enterModuleContext(grpc.secure_channel(f"localhost:{port}", credentials))


def setUpModule():
    """What has no TLS there (a WebSocket, a line, h2 by hand) talks to the same server beside it."""
    global ca
    ca = authority_for_module()
    certificate, key = ca.issue("edge", "localhost", "127.0.0.1")
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    test_grpc.server = unittest.enterModuleContext(Server(*flags, listeners=(HTTP, LINE_TOPIC, HTTPS)))
    port = test_grpc.server.ports[HTTPS]
    test_grpc.to = secured(port, ca)
    test_grpc.at = [f"localhost:{port}", str(ca.certificate)]


class Chat(test_grpc.Chat):
    pass


class Topics(test_grpc.Topics):
    pass


class Echo(test_grpc.Echo):
    pass


class Reflection(test_grpc.Reflection):
    pass


class Health(test_grpc.Code):
    def test_check_and_watch(self):
        stub, request = health_pb2_grpc.HealthStub(test_grpc.to), health_pb2.HealthCheckRequest()
        serving = health_pb2.HealthCheckResponse.SERVING
        self.assertEqual(stub.Check(request, timeout=SECONDS_MAX).status, serving)
        watch = stub.Watch(request, timeout=SECONDS_MAX)
        self.assertEqual(next(watch).status, serving)
        watch.cancel()


class Trust(test_grpc.Code):
    def test_a_server_that_nobody_vouches_for_is_not_called(self):
        stub = edge_grpc.EdgeStub(secured(test_grpc.server.ports[HTTPS]))
        error = self.assertStatus(
            grpc.StatusCode.UNAVAILABLE, stub.Publish, edge.PublishRequest(topic="t", text="x"), timeout=SECONDS_MAX
        )
        self.assertIn("CERTIFICATE_VERIFY_FAILED", error.details())

    def test_many_connections_of_their_own(self):
        """Each with a handshake, since channels with other options share none."""
        port, members = test_grpc.server.ports[HTTPS], []
        credentials = grpc.ssl_channel_credentials(ca.certificate.read_bytes())
        for _ in range(20):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = self.enterContext(grpc.secure_channel(f"localhost:{port}", credentials, options=options))
            members.append(Member(channel))
            members[-1].join("tls-many")
        members[0].say(publish=edge.Publish(topic="tls-many", text="to all"))
        for member in members:
            self.assertEqual(member.messages(1)[0].text, "to all")
            member.call.cancel()

