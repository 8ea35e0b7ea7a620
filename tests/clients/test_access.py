"""Tokens and keys: PyJWT signs, and every protocol is asked. Nothing that a token does not allow, and no token that is bad."""

import asyncio
import base64
import hashlib
import hmac
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest

import grpc
import jwt
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import grpc_edge
from grpc_edge import edge, edge_grpc
from server import HTTP, LINE_ANY_TOPIC, LINE_CHAT, LINE_TOPIC, AsyncTest, Server, run

SECONDS_MAX = 10
SECRET = b"0123456789abcdef0123456789abcdef"
API_KEY = "sesame-open-7c1d9f"
OPERATOR_KEY = "operate-only-93aa01"
LENGTH_TOPIC = "tcp://127.0.0.1:0?framing=length&app=topic&topic=room"
LISTENERS = (HTTP, LINE_TOPIC, LINE_ANY_TOPIC, LENGTH_TOPIC, LINE_CHAT)

# One key of each kind, as an issuer would have them.
KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": SECRET,
}


def jwks():
    def named(algorithm, key):
        return json.loads(key) | {"kid": algorithm, "alg": algorithm, "use": "sig"}

    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()}
    return {
        "keys": [
            named("RS256", RSAAlgorithm.to_jwk(KEYS["RS256"].public_key())),
            named("ES256", ECAlgorithm.to_jwk(KEYS["ES256"].public_key())),
            named("EdDSA", OKPAlgorithm.to_jwk(KEYS["EdDSA"].public_key())),
            named("HS256", json.dumps(secret)),
        ]
    }


def token(subscribe=(), publish=(), algorithm="HS256", key=None, seconds=600, headers=None, **claims):
    claims = {"sub": "ann", "exp": int(time.time() + seconds)} | claims
    claims["holdline"] = {"subscribe": list(subscribe), "publish": list(publish)}
    claims = {name: value for name, value in claims.items() if value is not None}
    headers = {"kid": algorithm} if headers is None else headers
    return jwt.encode(claims, key or KEYS[algorithm], algorithm=algorithm, headers=headers)


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def all_of(**more):
    return token(["**"], ["**"], **more)


class Files:
    """Keys in files of their own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        keys = [
            {"name": "press", "key": API_KEY, "publish": ["news/*"], "subscribe": ["news/*"]},
            {"name": "ops", "sha256": hashlib.sha256(OPERATOR_KEY.encode()).hexdigest(), "admin": True},
        ]
        self.jwks = self.write("jwks.json", json.dumps(jwks()))
        lines = [f"{name} = {json.dumps(value)}" if name != "name" else f"[[key]]\nname = {json.dumps(value)}"
                 for key in keys for name, value in key.items()]
        self.api_keys = self.write("keys.toml", "\n".join(lines))

    def write(self, name, text):
        path = pathlib.Path(self.folder.name) / name
        path.write_text(text)
        return str(path)


def setUpModule():
    global files
    files = Files()
    unittest.addModuleCleanup(files.folder.cleanup)


def served(*flags, **settings):
    named = {"HOLDLINE_AUTH_JWKS": files.jwks, "HOLDLINE_AUTH_API_KEYS": files.api_keys, "HOLDLINE_AUTH_LEEWAY": "0s"}
    return Server(*flags, listeners=LISTENERS, **named | settings)


class Access(unittest.TestCase):
    """A server with keys of every kind; what it has counted is looked at after each question."""

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(served(**cls.settings))
        cls.url = f"http://127.0.0.1:{cls.server.http_port}"
        cls.admin = next(line.split()[-1] for line in cls.server.said if "listening" in line and cls.is_admin(line))
        cls.operator = bearer(OPERATOR_KEY)

    @classmethod
    def is_admin(cls, line):
        return line == [line for line in cls.server.said if line.startswith("listening on ")][-1]

    def refused(self, cause):
        text = requests.get(f"{self.admin}/metrics", headers=self.operator, timeout=SECONDS_MAX).text
        return int(text.split(f'holdline_auth_refused_total{{cause="{cause}"}} ')[1].split("\n")[0])

    def counts(self, cause, times=1):
        """What is done inside is refused so often for this cause."""
        test, before = self, self.refused(cause)

        class Counted:
            def __enter__(self):
                return self

            def __exit__(self, kind, *_):
                if kind is None:
                    test.assertEqual(test.refused(cause) - before, times, cause)

        return Counted()

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=SECONDS_MAX, **options)

    def post(self, path, data="hi", **options):
        return requests.post(self.url + path, data=data, timeout=SECONDS_MAX, **options)

    def error(self, answer, status, code):
        self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (status, code), answer.text)
        return answer


class Tokens(Access):
    def test_every_algorithm_with_its_key(self):
        for algorithm in KEYS:
            for headers in (None, {}):
                text = all_of(algorithm=algorithm, headers=headers)
                self.assertEqual(self.post("/topics/t", headers=bearer(text)).status_code, 200, algorithm)

    def test_every_place_for_a_token(self):
        text = all_of()
        for options in (
            {"headers": bearer(text)},
            {"headers": {"authorization": f"bearer {text}"}},
            {"headers": {"X-API-Key": text}},
            {"params": {"token": text}},
            {"auth": ("anyone", text)},
        ):
            self.assertEqual(self.get("/topics/t/info", **options).status_code, 200, options)

    def test_without_a_token(self):
        with self.counts("missing", 4):
            for answer in (self.get("/topics/t/info"), self.post("/topics/t"), self.post("/topics", "{}"), self.post("/echo")):
                self.error(answer, 401, "unauthenticated")
                self.assertEqual(answer.headers["WWW-Authenticate"], 'Bearer realm="holdline"')
        self.assertEqual(self.get("/").status_code, 200, "the pages are for all")

    def test_preflights_of_browsers_bring_no_token(self):
        asked = {"Origin": self.url, "Access-Control-Request-Method": "POST"}
        answer = requests.options(f"{self.url}/topics/t", headers=asked, timeout=SECONDS_MAX)
        self.assertEqual(answer.status_code, 204)

    def bad(self):
        now = int(time.time())
        head, body, signature = all_of().split(".")
        none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        # A public key taken for a secret: what made so many libraries fall (CVE-2015-9235).
        pem = KEYS["RS256"].public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        named = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"RS256"}').rstrip(b"=").decode()
        confused = hmac.digest(pem, f"{named}.{body}".encode(), "sha256")
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return [
            ("expired", all_of(seconds=-1)),
            ("not_yet", all_of(nbf=now + 60)),
            ("not_yet", all_of(iat=now + 60)),
            ("signature", f"{head}.{body}.{signature[:-4]}AAAA"),
            ("signature", all_of(key=b"another secret, of 32 bytes ....")),
            ("signature", all_of(algorithm="RS256", key=other)),
            ("algorithm", f"{none}.{body}."),
            ("algorithm", f"{none}.{body}.{signature}"),
            ("algorithm", all_of(algorithm="HS512", key=SECRET * 2, headers={"kid": "HS256"})),
            ("algorithm", f"{named}.{body}.{base64.urlsafe_b64encode(confused).rstrip(b'=').decode()}"),
            ("unknown_key", all_of(headers={"kid": "nobody's"})),
            ("malformed", "not-a-token"),
            ("malformed", all_of(headers={"kid": "HS256", "crit": ["exp"]})),
            ("no_expiry", all_of(exp=None)),
            ("claims", all_of(sub=7)),
            ("too_long", all_of(pad="x" * 8192)),
            ("audience", all_of(aud="somebody else")),
        ]

    def test_bad_tokens_are_refused_and_counted(self):
        for cause, text in self.bad():
            with self.subTest(cause=cause), self.counts(cause):
                answer = self.error(self.post("/topics/t", headers=bearer(text)), 401, "unauthenticated")
                self.assertIn("invalid_token", answer.headers["WWW-Authenticate"])
                self.assertNotIn(text, answer.text)

    def test_bad_tokens_over_curl_and_grpc(self):
        for cause, text in self.bad():
            with self.subTest(cause=cause), self.counts(cause, 2):
                said = subprocess.run(
                    ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge",
                     "-H", f"Authorization: Bearer {text}", f"{self.url}/topics/t/history"],
                    capture_output=True, text=True, timeout=SECONDS_MAX, check=True,
                )
                self.assertEqual(said.stdout, "401")
                with grpc_edge.channel(self.server.http_port) as channel, self.assertRaises(grpc.RpcError) as failed:
                    metadata = [("authorization", f"Bearer {text}")]
                    wish = edge.PublishRequest(topic="t", text="hi")
                    edge_grpc.EdgeStub(channel).Publish(wish, timeout=SECONDS_MAX, metadata=metadata)
                self.assertEqual(failed.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_tokens_are_in_no_log_and_no_metric(self):
        text = all_of(seconds=-1)
        self.get("/topics/t/info", params={"token": text})
        self.post("/topics/t", headers=bearer(text))
        metrics = requests.get(f"{self.admin}/metrics", headers=self.operator, timeout=SECONDS_MAX).text
        for part in (text, text.split(".")[1], text.split(".")[2]):
            self.assertNotIn(part, metrics + "".join(self.server.errors))


class OneTime(Access):
    settings = {"HOLDLINE_AUTH_ONE_TIME": "true"}

    def test_a_token_is_good_once(self):
        text = all_of(jti="1")
        self.assertEqual(self.post("/topics/t", headers=bearer(text)).status_code, 200)
        with self.counts("replayed", 2):
            self.error(self.post("/topics/t", headers=bearer(text)), 401, "unauthenticated")
            self.error(self.get("/topics/t/info", headers=bearer(text)), 401, "unauthenticated")
        with self.counts("claims"):
            self.error(self.post("/topics/t", headers=bearer(all_of())), 401, "unauthenticated")


class Topics(Access):
    """A reader of `read/*`, a writer of `write/*`, in every protocol."""

    def setUp(self):
        self.reader = bearer(token(["read/*"], ["write/*"]))

    def test_publications(self):
        self.assertEqual(self.post("/topics/write/a", headers=self.reader).status_code, 200)
        with self.counts("forbidden", 2):
            answer = self.post("/topics/read/a", headers=self.reader)
            self.assertEqual(answer.status_code, 403)
            self.assertIn('error="insufficient_scope"', answer.headers["WWW-Authenticate"])
            self.assertEqual(self.post("/chat/lobby", headers=self.reader).status_code, 403)
        chatter = bearer(token([], ["chat/lobby"]))
        self.assertEqual(self.post("/chat/lobby", headers=chatter).status_code, 200)

    def test_batches_line_by_line(self):
        lines = "\n".join(json.dumps({"topic": topic, "text": "x"}) for topic in ("write/a", "read/a", "write/b"))
        with self.counts("forbidden"):
            answer = self.post("/topics", lines, headers=self.reader)
        said = [json.loads(line) for line in answer.text.splitlines()]
        self.assertEqual([line.get("topic") for line in said], ["write/a", None, "write/b"])
        self.assertEqual(said[1]["error"]["message"], "you may not publish to this topic")

    def test_streams_polls_history_info_and_groups(self):
        with self.counts("forbidden", 8):
            for path in (
                "/topics/write%2Fa/info",
                "/topics/write/a/history",
                "/topics/write/a?wait=1ms",
                "/topics/write/a?stream=1",
                "/topics/write/a?stream=1&group=g",
                "/topics/read/a,write/b?wait=1ms",
            ):
                self.error(self.get(path, headers=self.reader), 403, "forbidden")
            for path in ("/topics/write/a", "/topics/read/a,write/b?group=g"):
                answer = self.get(path, headers=self.reader | {"Accept": "text/event-stream"})
                self.error(answer, 403, "forbidden")
        for path in ("/topics/read/a/info", "/topics/read/a/history", "/topics/read/a,read/b?wait=1ms"):
            self.assertEqual(self.get(path, headers=self.reader).status_code, 200, path)
        for path in ("/topics/read/a?stream=1", "/topics/read/a,read/b?stream=1&group=g"):
            with self.get(path, headers=self.reader, stream=True) as answer:
                self.assertEqual(answer.status_code, 200)

    def test_an_api_key(self):
        for headers in ({"X-API-Key": API_KEY}, bearer(API_KEY)):
            self.assertEqual(self.post("/topics/news/a", headers=headers).status_code, 200)
            self.error(self.post("/topics/other", headers=headers), 403, "publish_not_allowed")
        with self.counts("malformed"):
            self.error(self.post("/topics/news/a", headers={"X-API-Key": API_KEY + "x"}), 401, "unauthenticated")

    def test_grpc(self):
        with grpc_edge.channel(self.server.http_port) as channel:
            metadata = [("authorization", self.reader["Authorization"])]
            stub = edge_grpc.EdgeStub(channel)
            publish = lambda topic: stub.Publish(
                edge.PublishRequest(topic=topic, text="x"), timeout=SECONDS_MAX, metadata=metadata
            )
            self.assertEqual(publish("write/a").topic, "write/a")
            with self.counts("forbidden"), self.assertRaises(grpc.RpcError) as failed:
                publish("read/a")
            self.assertEqual(failed.exception.code(), grpc.StatusCode.PERMISSION_DENIED)
            member = grpc_edge.Member(channel, metadata=metadata)
            member.join("read/a")
            with self.counts("forbidden", 3):
                member.say(subscribe=edge.Subscribe(topic="write/a"))
                self.assertEqual(member.expect("error").error.code, "forbidden")
                member.say(subscribe=edge.Subscribe(topic="write/a", group="g"))
                self.assertEqual(member.expect("error").error.code, "forbidden")
                member.say(publish=edge.Publish(topic="read/a", text="x"))
                self.assertEqual(member.expect("error").error.code, "publish_not_allowed")
            member.say(publish=edge.Publish(topic="write/a", text="x"))
            member.expect("published")
            with self.counts("missing"), self.assertRaises(grpc.RpcError) as failed:
                next(stub.Connect(iter([]), timeout=SECONDS_MAX))
            self.assertEqual(failed.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_the_health_of_the_server_is_open(self):
        import health_pb2
        import health_pb2_grpc

        with grpc_edge.channel(self.server.http_port) as channel:
            asked = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=SECONDS_MAX)
        self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def tcp(self, listener, *frames):
        """Frames of lines; all that comes until the server ends the connection, or nothing does for a moment."""
        with socket.create_connection(("127.0.0.1", self.server.ports[listener]), timeout=1) as client:
            client.sendall("".join(f"{frame}\n" for frame in frames).encode())
            said = b""
            try:
                while part := client.recv(4096):
                    said += part
            except TimeoutError:
                return said.decode(), "open"
            return said.decode(), "closed"

    def test_raw_tcp(self):
        room, read = token(["room"], ["room"]), token(["read/*"])
        self.assertEqual(self.tcp(LINE_TOPIC, f"AUTH {room}", "hello"), ("hello\n", "open"))
        self.assertEqual(self.tcp(LINE_ANY_TOPIC, f"AUTH {room}", "room", "hello"), ("hello\n", "open"))
        self.assertEqual(self.tcp(LINE_ANY_TOPIC, f"AUTH {room}", "room group=g", "hello"), ("hello\n", "open"))
        with self.counts("forbidden", 4):
            for listener, frames in (
                (LINE_TOPIC, [f"AUTH {read}", "hello"]),
                (LINE_ANY_TOPIC, [f"AUTH {room}", "news"]),
                (LINE_CHAT, [f"AUTH {room}", "ann"]),
            ):
                said, end = self.tcp(listener, *frames)
                self.assertEqual((json.loads(said)["error"]["code"], end), ("forbidden", "closed"), listener)
            self.assertEqual(self.tcp(LINE_ANY_TOPIC, f"AUTH {read}", "read/a", "hello"), ("", "closed"))
        for cause, frame in (
            ("missing", "hello"),
            ("missing", "AUTH"),
            ("malformed", "AUTH x"),
            ("malformed", f"AUTH {room} more"),
            ("expired", f"AUTH {token(seconds=-1)}"),
        ):
            with self.counts(cause):
                said, end = self.tcp(LINE_TOPIC, frame, "hello")
                self.assertEqual((json.loads(said)["error"]["code"], end), ("unauthenticated", "closed"), frame)

    def test_raw_tcp_with_lengths(self):
        auth = f"AUTH {token(['room'], ['room'])}".encode()
        frames = b"".join(len(frame).to_bytes(4, "big") + frame for frame in (auth, b"hello"))
        with socket.create_connection(("127.0.0.1", self.server.ports[LENGTH_TOPIC]), timeout=SECONDS_MAX) as client:
            for at in range(0, len(frames), 50):
                client.sendall(frames[at : at + 50])
            self.assertEqual(client.recv(9, socket.MSG_WAITALL), b"\0\0\0\5hello")


class Operators(Access):
    def test_the_admin_page_asks_for_an_operator(self):
        page = lambda path, **options: requests.get(self.admin + path, timeout=SECONDS_MAX, **options)
        for path in ("/healthz", "/readyz"):
            self.assertEqual(page(path).status_code, 200)
        for path in ("/", "/metrics"):
            answer = page(path)
            self.assertEqual(answer.status_code, 401)
            self.assertIn("Basic", answer.headers["WWW-Authenticate"], "so that a browser asks for the key")
            self.assertEqual(page(path, headers=bearer(API_KEY)).status_code, 403)
            self.assertEqual(page(path, headers=bearer(all_of())).status_code, 403)
            self.assertEqual(page(path, auth=("ops", OPERATOR_KEY)).status_code, 200)
            self.assertEqual(page(path, headers=self.operator).status_code, 200)


class WebSockets(Access, AsyncTest):
    def ws(self, path, **options):
        return connect(self.server.ws(path), **options)

    async def refuses(self, status, path, **options):
        with self.assertRaises(InvalidStatus) as failed:
            async with self.ws(path, **options):
                pass
        self.assertEqual(failed.exception.response.status_code, status)
        return failed.exception.response

    async def test_handshakes(self):
        text = token(["read/*", "chat/lobby"], ["write/*"])
        await self.refuses(401, "/topics/read/a")
        await self.refuses(401, "/echo", additional_headers=bearer(token(seconds=-1)))
        for path in ("/topics/write/a", "/topics/write/a?group=g", "/chat/other"):
            answer = await self.refuses(403, path, additional_headers=bearer(text))
            self.assertEqual(json.loads(answer.body)["error"]["code"], "forbidden")
        async with self.ws(f"/topics/read/a?token={text}"), self.ws("/echo", additional_headers=bearer(text)) as echo:
            await echo.send("hello")
            self.assertEqual(await echo.recv(), "hello")
        async with self.ws("/topics/read/a", subprotocols=["holdline", f"holdline.token.{text}"]) as client:
            self.assertEqual(client.subprotocol, "holdline")

    async def test_who_may_not_write_is_closed_when_it_does(self):
        async with self.ws("/topics/read/a", additional_headers=bearer(token(["read/*"]))) as client:
            with self.counts("forbidden"):
                await client.send("hello")
                with self.assertRaises(ConnectionClosed) as closed:
                    await client.recv()
        self.assertEqual(closed.exception.rcvd.code, 1008)
        self.assertEqual(closed.exception.rcvd.reason, "you may not publish to this topic")

    async def test_who_only_reads_a_chat_comes_and_goes_unheard(self):
        all_of_it, silent = bearer(all_of()), bearer(token(["chat/*"]))
        async with self.ws("/chat/lobby?name=ann", additional_headers=all_of_it) as ann:
            self.assertEqual(await ann.recv(), "ann joined the chat")
            async with self.ws("/chat/lobby?name=bob", additional_headers=silent) as bob:
                await ann.send("hi")
                self.assertEqual(await bob.recv(), "ann: hi")
                self.assertEqual(await ann.recv(), "ann: hi")


class Expiry(Access, AsyncTest):
    settings = {"HOLDLINE_AUTH_RENEW_GRACE": "2s"}

    def ws(self, path, text, **options):
        return connect(self.server.ws(path), additional_headers=bearer(text), **options)

    async def test_connections_end_with_their_tokens(self):
        text, began = all_of(seconds=2), time.monotonic()
        member = grpc_edge.Member(grpc_edge.channel(self.server.http_port), metadata=[("authorization", f"Bearer {text}")])
        member.join("t")
        events = self.get("/topics/t", headers=bearer(text) | {"Accept": "text/event-stream"}, stream=True)
        lines = self.get("/topics/t?stream=1", headers=bearer(text), stream=True)
        raw = socket.create_connection(("127.0.0.1", self.server.ports[LINE_TOPIC]), timeout=SECONDS_MAX)
        raw.sendall(f"AUTH {text}\n".encode())
        async with self.ws("/topics/t", text) as client:
            with self.assertRaises(ConnectionClosed) as closed:
                await asyncio.wait_for(client.recv(), SECONDS_MAX)
        took = time.monotonic() - began
        self.assertTrue(2.5 < took < 6, took)
        self.assertEqual(closed.exception.rcvd.code, 4002)
        self.assertIn("event: expired", events.text)
        self.assertEqual(lines.text, "")
        self.assertEqual(raw.recv(100), b"")
        self.assertLessEqual(member.expect("expiring").expiring.seconds_left, 2)
        with self.assertRaises(grpc.RpcError) as failed:
            member.next()
        self.assertEqual(failed.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    async def test_a_poll_ends_with_its_token(self):
        answer = await asyncio.to_thread(self.get, "/topics/quiet?wait=30s", headers=bearer(all_of(seconds=1)))
        self.assertEqual((answer.status_code, answer.json()), (200, []))

    async def test_a_token_can_be_renewed(self):
        began = all_of(seconds=2)
        member = grpc_edge.Member(grpc_edge.channel(self.server.http_port), metadata=[("authorization", f"Bearer {began}")])
        member.join("t")
        async with self.ws("/topics/t?renew=1", began) as client, self.ws("/topics/other?renew=1", began) as other:
            self.assertTrue(json.loads(await asyncio.wait_for(client.recv(), SECONDS_MAX))["auth"]["expiring"])
            member.expect("expiring")
            for bad in (token(["other"]), all_of(sub="bob")):
                await client.send(f"AUTH {bad}")
                self.assertEqual(json.loads(await client.recv())["error"]["code"], "forbidden")
                member.say(authenticate=edge.Authenticate(token=bad))
                self.assertEqual(member.expect("error").error.code, "forbidden")
            fresh = all_of(seconds=600)
            await client.send(f"AUTH {fresh}")
            self.assertTrue(json.loads(await client.recv())["auth"]["renewed"])
            member.say(authenticate=edge.Authenticate(token=fresh))
            self.assertGreater(member.expect("authenticated").authenticated.expires, time.time() + 500)
            # Whoever shows nothing else goes with the token that both began with.
            await asyncio.wait_for(other.wait_closed(), SECONDS_MAX)
            self.assertEqual(other.close_code, 4002)
            await client.send("still here")
            self.assertEqual(await client.recv(), "still here")
            self.assertEqual(member.expect("message").message.text, "still here")
        member.call.cancel()

    async def test_raw_tcp_renews_in_frames(self):
        with socket.create_connection(("127.0.0.1", self.server.ports[LINE_TOPIC]), timeout=SECONDS_MAX) as client:
            lines = client.makefile()
            client.sendall(f"AUTH {all_of(seconds=1)} renew=1\n".encode())
            self.assertIn("expiring", await asyncio.to_thread(lines.readline))
            client.sendall(f"AUTH {all_of()}\nhello\n".encode())
            self.assertIn("renewed", "".join(sorted([lines.readline(), lines.readline()])))


class Anonymous(Access):
    settings = {"HOLDLINE_AUTH_ANONYMOUS_SUBSCRIBE": "public/*"}

    def test_some_topics_are_for_all(self):
        self.assertEqual(self.get("/topics/public/a/info").status_code, 200)
        with self.counts("missing", 2):
            self.error(self.get("/topics/private/info"), 401, "unauthenticated")
            self.error(self.post("/topics/public/a"), 401, "unauthenticated")


class Exposed(unittest.TestCase):
    def test_the_network_is_closed_without_keys(self):
        for flag, url in (("--listen", "http://0.0.0.0:0"), ("--admin", "0.0.0.0:0")):
            status, _, said = run("serve", flag, url)
            self.assertEqual(status, 2)
            self.assertIn("--insecure", said)
            self.assertEqual(said.count("\n"), 1, said)

    def test_a_key_that_cannot_be_used_is_an_error_of_its_line(self):
        bad = files.write("bad.json", '{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}')
        config = files.write("bad.toml", f"[auth]\n\njwks = {json.dumps(bad)}\n")
        status, _, said = run("check-config", config)
        self.assertEqual(status, 1)
        self.assertIn("line 3", said)
        self.assertIn("has 5 bytes", said)


if __name__ == "__main__":
    unittest.main()
