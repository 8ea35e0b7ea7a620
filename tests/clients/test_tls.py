"""TLS: openssl s_client, curl, websockets and grpcio against https:// and tls:// listeners, and those who do it wrong."""

import asyncio
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
import unittest
import urllib.request

import grpc
import websockets

from authority import authority_for_module, openssl
from server import AsyncTest, Server, run

HTTPS = "https://127.0.0.1:0"
TLS_ECHO = "tls://127.0.0.1:0?framing=line&app=echo"
TLS_ROOM = "tls://127.0.0.1:0?framing=line&app=topic&topic=room"
SECONDS_MAX = 15


def setUpModule():
    global ca, certificate, key, server
    ca = authority_for_module()
    certificate, key = ca.issue("edge", "localhost", "127.0.0.1", "edge.example")
    rsa = ca.issue("other", "other.example", "*.wild.example", rsa=True)
    flags = ["--tls-certificate", certificate, "--tls-key", key, "--tls-certificate", rsa[0], "--tls-key", rsa[1]]
    server = unittest.enterModuleContext(Server(*map(str, flags), listeners=(HTTPS, TLS_ECHO, TLS_ROOM)))


def context(**versions):
    made = ssl.create_default_context(cafile=ca.certificate)
    for name, value in versions.items():
        setattr(made, name, value)
    return made


def s_client(*arguments, said=b"Q\n", status=0, at=None, listener=HTTPS):
    port = (at or server).ports[listener]
    return openssl(
        "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", ca.certificate, *arguments, said=said, status=status
    )


def curl(path, *arguments, said=b"", at=None):
    url = f"https://localhost:{(at or server).ports[HTTPS]}{path}"
    command = ["curl", "--silent", "--show-error", "--max-time", str(SECONDS_MAX), "--cacert", ca.certificate, "--ipv4"]
    done = subprocess.run([*command, *arguments, url], input=said, capture_output=True, timeout=2 * SECONDS_MAX, check=False)
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr.decode()}"
    return done.stdout.decode()


def metric(name, at=None):
    """The sum of a metric over its labels."""
    admin = [line for line in (at or server).said if line.startswith("listening on")][-1].split()[-1]
    with urllib.request.urlopen(f"{admin.rstrip('/')}/metrics", timeout=SECONDS_MAX) as answer:
        text = answer.read().decode()
    values = re.findall(rf"^holdline_{name}(?:{{[^}}]*}})? (\d+)", text, re.MULTILINE)
    assert values, f"no metric {name}"
    return sum(map(int, values))


def soon(true, seconds_max=5):
    deadline = time.monotonic() + seconds_max
    while not true():
        assert time.monotonic() < deadline, "not soon"
        time.sleep(0.02)


class Openssl(unittest.TestCase):
    def test_both_versions_and_their_ciphers(self):
        for flag, version in (("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")):
            said = s_client(flag, "-verify_return_error", "-verify_hostname", "edge.example")
            self.assertIn("Verify return code: 0 (ok)", said)
            self.assertRegex(said, rf"New, {re.escape(version)}, Cipher is \S*(GCM|CHACHA20)")

    def test_each_cipher_carries_data(self):
        suites = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
        older = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
        for arguments in [("-tls1_3", "-ciphersuites", suite) for suite in suites] + [
            ("-tls1_2", "-cipher", suite) for suite in older
        ]:
            with self.subTest(arguments):
                self.assertEqual(echo(*arguments), b"one\ntwo\n")

    def test_old_versions_are_refused(self):
        for flag in ("-tls1", "-tls1_1"):
            said = s_client(flag, "-cipher", "DEFAULT:@SECLEVEL=0", status=1)
            self.assertRegex(said, "alert (protocol version|handshake failure)|no protocols available|unsupported protocol")
            self.assertNotIn("Cipher is ECDHE", said)

    def test_alpn_prefers_h2(self):
        for offered, agreed in (("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")):
            self.assertIn(f"ALPN protocol: {agreed}", s_client("-alpn", offered))
        self.assertIn("no application protocol", s_client("-alpn", "spdy/1", status=1))
        self.assertIn("No ALPN negotiated", s_client())

    def test_the_certificate_is_that_of_the_host(self):
        for name, subject in (
            ("edge.example", "edge"),
            ("other.example", "other"),
            ("a.wild.example", "other"),
            ("nobody.example", "edge"),
        ):
            self.assertRegex(s_client("-servername", name), rf"subject=CN ?= ?{subject}\b")
        self.assertRegex(s_client("-noservername"), r"subject=CN ?= ?edge\b")

    def test_a_session_is_resumed(self):
        for flag in ("-tls1_3", "-tls1_2"):
            with self.subTest(flag):
                session, before = ca.folder / "session.pem", metric("tls_resumptions_total")
                # It waits for the ticket, which TLS 1.3 sends after the handshake.
                talk = lambda *more: echo(flag, *more)  # noqa: E731
                self.assertEqual(talk("-sess_out", session), b"one\ntwo\n")
                self.assertEqual(talk("-sess_in", session), b"one\ntwo\n")
                self.assertEqual(metric("tls_resumptions_total"), before + 1)

    def test_renegotiation_is_declined(self):
        said = s_client("-tls1_2", said=b"R\n", status=None)
        self.assertRegex(said, "no renegotiation|no_renegotiation")
        self.assertIn("Cipher is", said)

    def test_keys_are_renewed_on_demand(self):
        self.assertEqual(echo("-tls1_3", lines=(b"K\n", b"one\n", b"k\n", b"two\n")), b"one\ntwo\n")

    def test_compression_and_early_data_are_off(self):
        said = s_client("-tls1_3")
        self.assertIn("Compression: NONE", said)
        self.assertIn("Early data was not sent", said)
        self.assertNotRegex(said, r"Max Early Data: [1-9]")


def echo(*arguments, lines=(b"one\n", b"two\n"), at=None):
    """What comes back of lines through openssl s_client."""
    port = (at or server).ports[TLS_ECHO]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", ca.certificate, "-quiet", *arguments]
    if any(line in (b"K\n", b"k\n") for line in lines):
        command = [part for part in command if part != "-quiet"]
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    expected, heard = [line for line in lines if len(line) > 2], b""
    try:
        for line in lines:
            process.stdin.write(line)
            process.stdin.flush()
            deadline = time.monotonic() + SECONDS_MAX
            while line in expected and not heard.endswith(line):
                assert time.monotonic() < deadline
                heard += process.stdout.read1(4096)
            # A command must not be read together with what follows it.
            while line not in expected and process.stderr.readline() != b"KEYUPDATE\n":
                assert process.poll() is None, "s_client has ended"
        return b"".join(line for line in expected if line in heard)
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(SECONDS_MAX)
        process.stdout.close()
        process.stderr.close()


class Http(unittest.TestCase):
    def test_both_versions_of_http(self):
        for flag, version in (("--http1.1", "1.1"), ("--http2", "2")):
            said = curl("/topics/tls-info/info", flag, "--write-out", "\n%{http_version} %{http_code}")
            self.assertTrue(said.endswith(f"\n{version} 200"), said)

    def test_a_long_body_goes_both_ways(self):
        text = b"x" * 900_000
        curl("/topics/tls-long", "--data-binary", "@-", said=text)
        self.assertIn("x" * 1000, curl("/topics/tls-long/history"))
        curl("/topics/tls-long", "--http2", "--data-binary", "@-", said=text)

    def test_events_are_streamed(self):
        url = f"https://localhost:{server.ports[HTTPS]}/topics/tls-events"
        command = ["curl", "--silent", "--no-buffer", "--max-time", "10", "--cacert", str(ca.certificate), "--ipv4"]
        for flag in ("--http1.1", "--http2"):
            with subprocess.Popen([*command, flag, "-H", "Accept: text/event-stream", url], stdout=subprocess.PIPE) as reader:
                soon(lambda: '"subscribers":1' in curl("/topics/tls-events/info"))
                curl("/topics/tls-events", "--data", f"hello {flag}")
                for line in reader.stdout:
                    if line.startswith(b"data: hello"):
                        break
                self.assertEqual(line, f"data: hello {flag}\n".encode())
                reader.terminate()
            soon(lambda: '"subscribers":0' in curl("/topics/tls-events/info"))

    def test_plain_http_is_told_to_use_tls(self):
        port, before = server.ports[HTTPS], metric("tls_handshakes_failed_total")
        said = subprocess.run(
            ["curl", "--silent", "--include", f"http://127.0.0.1:{port}/"], capture_output=True, timeout=20, check=False
        ).stdout
        self.assertTrue(said.startswith(b"HTTP/1.1 400 "), said)
        self.assertIn(b'"message":"this port speaks TLS: use https or wss"', said)
        self.assertEqual(metric("tls_handshakes_failed_total"), before + 1)


class WebSockets(AsyncTest):
    async def test_echo_of_all_sizes(self):
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            url, trust = f"wss://localhost:{server.ports[HTTPS]}/echo", context(maximum_version=version)
            async with websockets.connect(url, ssl=trust, max_size=None) as client:
                for size in (0, 1, 125, 126, 16_000, 16_384, 16_385, 65_536, 500_000):
                    await client.send(b"x" * size)
                    self.assertEqual(await asyncio.wait_for(client.recv(), SECONDS_MAX), b"x" * size)

    async def test_a_room_over_every_way_in(self):
        url, trust = f"wss://localhost:{server.ports[HTTPS]}/topics/room", context()
        async with websockets.connect(url, ssl=trust) as client:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.ports[TLS_ROOM], ssl=trust, server_hostname="localhost"
            )
            await client.send("from the web")
            self.assertEqual(await asyncio.wait_for(reader.readline(), SECONDS_MAX), b"from the web\n")
            writer.write(b"from the line\n")
            said = [await asyncio.wait_for(client.recv(), SECONDS_MAX) for _ in range(2)]
            self.assertEqual(said[-1], "from the line")
            writer.close()


class Grpc(unittest.TestCase):
    def test_health_over_tls(self):
        credentials = grpc.ssl_channel_credentials(ca.certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{server.ports[HTTPS]}", credentials) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            self.assertEqual(check(b"", timeout=SECONDS_MAX), b"\x08\x01")


class ClientCertificates(unittest.TestCase):
    def test_who_has_one_is_let_in(self):
        client, stranger = ca.issue("somebody", client=True), ca.folder / "stranger.pem"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stranger", "-keyout",
                ca.folder / "stranger.key", "-out", stranger)  # fmt: skip
        settings = {
            "HOLDLINE_TLS_CERTIFICATES": certificate,
            "HOLDLINE_TLS_KEYS": key,
            "HOLDLINE_TLS_CLIENT_CA": ca.certificate,
        }
        mine = ("-cert", client[0], "-key", client[1])
        for asked in ("optional", "required"):
            with Server(listeners=(TLS_ECHO,), HOLDLINE_TLS_CLIENT_CERTIFICATES=asked, **settings) as asking:
                for flag in ("-tls1_3", "-tls1_2"):
                    self.assertEqual(echo(flag, *mine, at=asking), b"one\ntwo\n")
                    bare = s_client(flag, "-ign_eof", said=b"hello\n", status=None, at=asking, listener=TLS_ECHO) if asked == "required" else ""
                    if asked == "optional":
                        self.assertEqual(echo(flag, at=asking), b"one\ntwo\n")
                    else:
                        self.assertRegex(bare, "certificate required|handshake failure")
                    foreign = s_client(flag, "-ign_eof", "-cert", stranger, "-key", ca.folder / "stranger.key",
                                       said=b"hello\n", status=None, at=asking, listener=TLS_ECHO)  # fmt: skip
                    self.assertRegex(foreign, "alert (unknown ca|bad certificate|certificate unknown|decrypt error)")
                self.assertGreater(metric("tls_handshakes_failed_total", asking), 1)


class Versions(unittest.TestCase):
    def test_1_2_can_be_turned_off(self):
        flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
        with Server(*flags, listeners=(HTTPS,), HOLDLINE_TLS_VERSION_MIN="1.3") as strict:
            self.assertIn("alert protocol version", s_client("-tls1_2", status=1, at=strict))
            self.assertIn("New, TLSv1.3", s_client(at=strict))


class BadPeers(unittest.TestCase):
    def setUp(self):
        self.before = metric("tls_handshakes_failed_total")

    def connect(self, listener=HTTPS):
        return socket.create_connection(("127.0.0.1", server.ports[listener]), timeout=SECONDS_MAX)

    def test_garbage_gets_an_alert(self):
        for said in (b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"\x00" * 100, bytes(range(256)) * 300, b"GET / HTTP/1.1\r\n\r\n"):
            with self.connect(TLS_ECHO) as peer:
                peer.sendall(said)
                answer = peer.recv(100)
                self.assertEqual((answer[0], answer[5]), (21, 2), answer)
                # All that follows is the end.
                self.assertEqual(peer.recv(100), b"")
        soon(lambda: metric("tls_handshakes_failed_total") >= self.before + 4)

    def test_a_hello_byte_by_byte_is_understood(self):
        hello = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context().wrap_bio(*hello, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            client.do_handshake()
        with self.connect() as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in hello[1].read():
                peer.send(bytes([byte]))
            hello[0].write(peer.recv(4096))
            self.assertEqual(hello[0].read(1), b"\x16")

    def test_records_over_the_limit_and_of_nothing_end_it(self):
        for said in (b"\x17\x03\x03\x45\x00" + b"x" * 100, b"\x17\x03\x03\x00\x20" + b"x" * 32, b"\x00" * 50):
            raw = self.connect(TLS_ECHO)
            secured = context().wrap_socket(raw, server_hostname="localhost")
            secured.sendall(b"fine\n")
            self.assertEqual(secured.recv(100), b"fine\n")
            faults = metric("tls_faults_total")
            socket.socket(fileno=secured.detach()).sendall(said)
            soon(lambda: metric("tls_faults_total") == faults + 1)

    def test_an_end_without_a_goodbye_is_counted(self):
        before = metric("tls_truncations_total")
        secured = context().wrap_socket(self.connect(TLS_ECHO), server_hostname="localhost")
        secured.sendall(b"fine\n")
        self.assertEqual(secured.recv(100), b"fine\n")
        socket.socket(fileno=secured.detach()).close()
        soon(lambda: metric("tls_truncations_total") == before + 1)

    def test_half_handshakes_keep_no_more_than_they_may(self):
        def hello():
            sent = ssl.MemoryBIO()
            with self.assertRaises(ssl.SSLWantReadError):
                context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
            return sent.read()

        flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
        settings = {"HOLDLINE_TLS_HANDSHAKE_BYTES_MAX": "256KiB", "HOLDLINE_LIMITS_HANDSHAKES_PER_ADDRESS_MAX": "0"}
        with Server(*flags, listeners=(HTTPS,), shards=1, **settings) as small:
            # Those that wait for their peers after their hellos, and those whose hellos are long and do not end.
            for said in (hello(), b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + b"x" * 15_000):
                before, crowd = metric("tls_handshakes_failed_total", small), []
                for number in range(200):
                    crowd.append(socket.create_connection(("127.0.0.1", small.ports[HTTPS]), timeout=SECONDS_MAX))
                    crowd[-1].sendall(said)
                    if number % 4 == 0:
                        self.assertLessEqual(metric("tls_handshake_bytes", small), 256 * 1024)
                soon(lambda: metric("tls_handshakes_failed_total", small) > before + 20, SECONDS_MAX)
                self.assertGreater(metric("tls_handshake_bytes", small), 0)
                self.assertLessEqual(metric("tls_handshake_bytes", small), 256 * 1024)
                # Somebody who means it comes through.
                self.assertIn('"subscribers"', curl("/topics/a/info", at=small))
                for peer in crowd:
                    peer.close()
                soon(lambda: metric("tls_handshake_bytes", small) == 0, SECONDS_MAX)

    def test_half_a_handshake_takes_its_time_and_no_more(self):
        flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
        with Server(*flags, listeners=(HTTPS, TLS_ECHO), HOLDLINE_LIMITS_HANDSHAKE_TIMEOUT="1s") as hasty:
            crowd = []
            for number in range(600):
                listener = (HTTPS, TLS_ECHO)[number % 2]
                peer = socket.create_connection(("127.0.0.1", hasty.ports[listener]), timeout=SECONDS_MAX)
                peer.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" if number % 3 else b"")
                crowd.append(peer)
            started = time.monotonic()
            # Others are served meanwhile.
            self.assertIn('"subscribers"', curl("/topics/a/info", at=hasty))
            for peer in crowd:
                while peer.recv(100):
                    pass
                peer.close()
            self.assertLess(time.monotonic() - started, 10)
            soon(lambda: metric("tls_connections", hasty) == 0)


class Reload(unittest.TestCase):
    CONNECTIONS = 1000

    def test_a_certificate_is_swapped_under_a_thousand_connections(self):
        paths = ca.issue("swapped", "localhost", "first.example")
        flags = ("--tls-certificate", str(paths[0]), "--tls-key", str(paths[1]))
        with Server(*flags, listeners=(HTTPS, TLS_ECHO)) as live:
            trust = context()

            def connect():
                raw = socket.create_connection(("127.0.0.1", live.ports[TLS_ECHO]), timeout=SECONDS_MAX)
                return trust.wrap_socket(raw, server_hostname="localhost")

            def talk(clients, line):
                for client in clients:
                    client.sendall(line)
                for client in clients:
                    self.assertEqual(client.recv(100), line)

            old = [connect() for _ in range(self.CONNECTIONS)]
            talk(old, b"before\n")
            ca.issue("swapped", "localhost", "second.example")
            live.signal(signal.SIGHUP)
            live.signalled = False
            names = lambda client: {name for _, name in client.getpeercert()["subjectAltName"]}  # noqa: E731

            def new_names():
                with connect() as client:
                    return names(client)

            soon(lambda: "second.example" in new_names())
            talk(old, b"after\n")
            self.assertTrue(all("first.example" in names(client) for client in old[:: self.CONNECTIONS // 10]))
            # What cannot be used changes nothing.
            paths[0].write_text("no certificate")
            live.signal(signal.SIGHUP)
            live.signalled = False
            soon(lambda: any("no certificate" in line for line in live.errors))
            self.assertIn("second.example", new_names())
            talk(old, b"still\n")
            self.assertEqual(metric("tls_connections", live), self.CONNECTIONS)
            for client in old:
                client.close()


class Startup(unittest.TestCase):
    def test_errors_name_the_file_and_what_to_do(self):
        missing, other = ca.folder / "missing.pem", ca.issue("unlike", "localhost")[1]
        serve = ("serve", "--admin", "off", "--listen", HTTPS)
        for flags, said in (
            ((), "there is no certificate"),
            (("--tls-certificate", missing), f"cannot read: No such file or directory (os error 2), {missing}"),
            (("--tls-certificate", certificate), f"no private key, {certificate}"),
            (("--tls-certificate", certificate, "--tls-key", other), f"the key is not that of {certificate}, {other}"),
            (("--tls-certificate", key, "--tls-key", key), f"no certificate, {key}"),
        ):
            status, _, errors = run(*serve, *map(str, flags))
            self.assertEqual(status, 2, errors)
            self.assertIn(said, errors)
            self.assertEqual(errors.count("\n"), 1, errors)

    def test_an_expired_certificate_is_served_and_said(self):
        expired = ca.issue("expired", "localhost", days=0)
        time.sleep(1.1)
        with Server("--tls-certificate", str(expired[0]), "--tls-key", str(expired[1]), listeners=(HTTPS,)) as stale:
            soon(lambda: any("has expired" in line for line in stale.errors))
            self.assertIn("certificate has expired", s_client(status=None, at=stale))

    def test_operators_hear_when_a_certificate_expires(self):
        for days, is_soon in ((13, True), (15, False)):
            paths = ca.issue(f"of-{days}-days", "soon.example", days=days)
            with Server("--tls-certificate", str(paths[0]), "--tls-key", str(paths[1]), listeners=(HTTPS,)) as told:
                left = metric("tls_certificate_not_after_timestamp_seconds", told) - time.time()
                self.assertAlmostEqual(left, days * 86_400, delta=600)
                self.assertEqual(any("the certificate expires in" in line for line in told.errors), is_soon)


class Storm(unittest.TestCase):
    """Handshakes by many threads at once while an open connection's messages are timed."""

    def test_open_connections_go_first(self):
        secured = context().wrap_socket(
            socket.create_connection(("127.0.0.1", server.ports[TLS_ECHO]), timeout=SECONDS_MAX), server_hostname="localhost"
        )
        over, done = threading.Event(), []

        def knock():
            trust = context()
            while not over.is_set():
                raw = socket.create_connection(("127.0.0.1", server.ports[TLS_ECHO]), timeout=SECONDS_MAX)
                with trust.wrap_socket(raw, server_hostname="localhost"):
                    done.append(1)

        knockers = [threading.Thread(target=knock) for _ in range(8)]
        for knocker in knockers:
            knocker.start()
        slowest = 0.0
        for _ in range(200):
            began = time.monotonic()
            secured.sendall(b"ping\n")
            self.assertEqual(secured.recv(100), b"ping\n")
            slowest = max(slowest, time.monotonic() - began)
        over.set()
        for knocker in knockers:
            knocker.join()
        self.assertGreater(len(done), 8)
        # The knockers share this machine with the server; a second would be a queue of handshakes.
        self.assertLess(slowest, 1)
