"""The Python package websockets as a client: echo, chat, topics."""

import asyncio
import os
import unittest

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from server import HTTP, AsyncTest, Server

SECONDS_MAX = 10
# The message limit by default, and what fits into the queue that holds the answer.
BIG = 200 * 1024


def setUpModule():
    global server
    server = unittest.enterModuleContext(Server())


async def receive(ws):
    return await asyncio.wait_for(ws.recv(), SECONDS_MAX)


async def expect(ws, *messages):
    """These messages come next, in this order."""
    for message in messages:
        got = await receive(ws)
        assert got == message, f"{got!r} instead of {message!r}"


async def expect_silence(*clients):
    """Nothing more is on its way: a ping's answer comes after all that was queued before it."""
    for ws in clients:
        pong = await ws.ping()
        reader = asyncio.ensure_future(ws.recv())
        await asyncio.wait_for(pong, SECONDS_MAX)
        # What came before the answer is in the reader's hands by now: it only has to be its turn.
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reader.done(), f"an unexpected message: {reader.result()!r}"
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


class Echo(AsyncTest):
    compression = "deflate"

    def connect(self, path="/echo", **options):
        return connect(server.ws(path), compression=self.compression, max_size=None, **options)

    async def test_extension_is_what_was_asked_for(self):
        async with self.connect() as ws:
            names = [extension.name for extension in ws.protocol.extensions]
            self.assertEqual(names, ["permessage-deflate"] if self.compression else [])

    async def test_text(self):
        async with self.connect() as ws:
            for text in ["hello", "", "grüße, 世界, 🦀", "x" * 125, "x" * 126, "x" * 65535, "x" * 65536]:
                await ws.send(text)
                await expect(ws, text)

    async def test_binary(self):
        async with self.connect() as ws:
            for data in [b"", b"\x00", bytes(range(256)), os.urandom(70000)]:
                await ws.send(data)
                await expect(ws, data)

    async def test_large(self):
        async with self.connect() as ws:
            for message in ["0123456789" * (BIG // 10), os.urandom(BIG)]:
                await ws.send(message)
                await expect(ws, message)

    async def test_fragmented(self):
        async with self.connect() as ws:
            await ws.send(["frag", "men", "", "ted ", "grüße"])
            await expect(ws, "fragmented grüße")
            await ws.send([os.urandom(0), b"\x01", b"\x02\x03"])
            await expect(ws, b"\x01\x02\x03")

    async def test_many_in_flight_keep_their_order(self):
        async with self.connect() as ws:
            texts = [f"message {number}" for number in range(2000)]

            async def send():
                for text in texts:
                    await ws.send(text)

            sender = asyncio.ensure_future(send())
            await expect(ws, *texts)
            await sender

    async def test_ping_is_answered(self):
        async with self.connect() as ws:
            for data in [b"", b"are you there", b"x" * 125]:
                await asyncio.wait_for(await ws.ping(data), SECONDS_MAX)

    async def test_close_codes_are_returned(self):
        for code in [1000, 1001, 1003, 3000, 4999]:
            ws = await self.connect()
            await asyncio.wait_for(ws.close(code, "bye"), SECONDS_MAX)
            self.assertEqual((ws.close_code, ws.protocol.close_rcvd.code), (code, code))

    async def test_hundred_clients_at_once(self):
        async def one(number):
            async with self.connect() as ws:
                await ws.send(f"client {number}")
                await expect(ws, f"client {number}")

        await asyncio.gather(*(one(number) for number in range(100)))


class EchoWithoutCompression(Echo):
    compression = None


class Handshake(AsyncTest):
    async def test_subprotocol_is_one_of_those_offered_or_none(self):
        async with connect(server.ws("/echo"), subprotocols=["soup", "chat"]) as ws:
            self.assertIn(ws.subprotocol, [None, "soup", "chat"])
            await ws.send("still echoes")
            await expect(ws, "still echoes")

    async def test_configured_subprotocols_are_selected_by_the_servers_preference(self):
        with Server(listeners=(HTTP,), HOLDLINE_WEBSOCKET_SUBPROTOCOLS="chat.v2,chat.v1") as own:
            for offered, chosen in [(["chat.v1", "chat.v2"], "chat.v2"), (["soup", "chat.v1"], "chat.v1")]:
                async with connect(own.ws("/echo"), subprotocols=offered) as ws:
                    self.assertEqual(ws.subprotocol, chosen)

    async def test_configured_origins_are_welcome_and_no_others(self):
        with Server(listeners=(HTTP,), HOLDLINE_WEBSOCKET_ORIGINS="https://app.example") as own:
            async with connect(own.ws("/echo"), origin="https://app.example") as ws:
                await ws.send("hello")
                await expect(ws, "hello")
            with self.assertRaises(InvalidStatus) as refused:
                await connect(own.ws("/echo"), origin="https://app.example.evil")
            self.assertEqual(refused.exception.response.status_code, 403)

    async def test_deflate_parameters_are_honoured(self):
        for options in [
            {"server_no_context_takeover": True},
            {"client_no_context_takeover": True},
            {"server_max_window_bits": 9},
            {"server_max_window_bits": 15, "client_max_window_bits": True},
            {"client_max_window_bits": 10},
        ]:
            factory = ClientPerMessageDeflateFactory(**options)
            async with connect(server.ws("/echo"), compression=None, extensions=[factory]) as ws:
                for text in ["repeat " * 1000, "repeat " * 1000, "and something else"]:
                    await ws.send(text)
                    await expect(ws, text)

    async def test_same_origin_is_welcome(self):
        async with connect(server.ws("/echo"), origin=f"http://127.0.0.1:{server.http_port}") as ws:
            await ws.send("hello")
            await expect(ws, "hello")


class Chat(AsyncTest):
    def connect(self, name, room="lobby", **options):
        return connect(server.ws(f"/chat/{room}?name={name}"), **options)

    async def test_join_say_leave(self):
        async with self.connect("ann") as ann:
            await expect(ann, "ann joined the chat")
            async with self.connect("bob") as bob:
                await expect(ann, "bob joined the chat")
                await expect(bob, "bob joined the chat")
                await ann.send("hi")
                await expect(ann, "ann: hi")
                await expect(bob, "ann: hi")
                await bob.send("hello, grüße")
                await expect(ann, "bob: hello, grüße")
                await expect(bob, "bob: hello, grüße")
            await expect(ann, "bob left the chat")

    async def test_one_who_drops_the_connection_leaves_too(self):
        async with self.connect("ann", room="drop") as ann:
            await expect(ann, "ann joined the chat")
            bob = await self.connect("bob", room="drop")
            await expect(ann, "bob joined the chat")
            bob.transport.abort()
            await expect(ann, "bob left the chat")

    async def test_rooms_are_apart(self):
        async with self.connect("ann", room="one") as ann, self.connect("bob", room="two") as bob:
            await expect(ann, "ann joined the chat")
            await expect(bob, "bob joined the chat")
            await ann.send("only here")
            await expect(ann, "ann: only here")
            await expect_silence(ann, bob)

    async def test_with_and_without_compression_in_one_room(self):
        async with self.connect("ann", room="mix") as ann, self.connect("bob", room="mix", compression=None) as bob:
            await expect(ann, "ann joined the chat", "bob joined the chat")
            await expect(bob, "bob joined the chat")
            text = "the same words over and over " * 100
            await bob.send(text)
            await expect(ann, f"bob: {text}")
            await expect(bob, f"bob: {text}")

    async def test_names_and_rooms_are_percent_decoded(self):
        async with self.connect("J%C3%BCrgen%20K", room="caf%C3%A9") as one, self.connect("two", room="café") as two:
            await expect(one, "Jürgen K joined the chat", "two joined the chat")
            await expect(two, "two joined the chat")


class Topics(AsyncTest):
    async def test_text_stays_text_and_binary_binary(self):
        async with connect(server.ws("/topics/t")) as one, connect(server.ws("/topics/t")) as two:
            await asyncio.gather(*(await one.ping(), await two.ping()))
            for message in ["text", b"binary", "", b"", "grüße", bytes(range(256))]:
                await one.send(message)
                await expect(one, message)
                await expect(two, message)

    async def test_echo_0_hides_only_my_own(self):
        url = server.ws("/topics/quiet?echo=0")
        async with connect(url) as one, connect(url) as two:
            await one.send("from one")
            await expect(two, "from one")
            await two.send("from two")
            await expect(one, "from two")
            await expect_silence(one, two)

    async def test_a_topic_may_have_slashes(self):
        async with connect(server.ws("/topics/a/b/c")) as one, connect(server.ws("/topics/a/b")) as other:
            await one.send("deep")
            await expect(one, "deep")
            await expect_silence(other)

    async def test_a_large_message_reaches_everyone(self):
        async with connect(server.ws("/topics/large"), max_size=None) as one:
            others = [await connect(server.ws("/topics/large"), max_size=None) for _ in range(10)]
            await asyncio.gather(*[await ws.ping() for ws in others])
            data = os.urandom(BIG)
            await one.send(data)
            for ws in [one, *others]:
                await expect(ws, data)
                await ws.close()

    async def test_a_subscriber_that_leaves_gets_nothing_and_harms_nobody(self):
        async with connect(server.ws("/topics/leave")) as one:
            gone = await connect(server.ws("/topics/leave"))
            await gone.close()
            await one.send("after")
            await expect(one, "after")
            with self.assertRaises(ConnectionClosed):
                await receive(gone)


if __name__ == "__main__":
    unittest.main()
