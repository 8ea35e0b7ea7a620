"""A peer over the Python package h2, which is an HTTP/2 of its own: requests, answers, windows, on a plain socket."""

import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

SECONDS_MAX = 15


class Answer:
    """What has come on a stream so far."""

    def __init__(self):
        self.status, self.fields, self.body, self.trailers = None, {}, b"", {}
        self.ended, self.reset = False, None


class Peer:
    """One connection with prior knowledge, for the length of a `with` block. Windows are opened as bytes come."""

    def __init__(self, port, window=None, credits=True):
        self.port, self.window, self.credits = port, window, credits
        self.answers, self.events, self.goaway = {}, [], None
        self.held = {}

    def __enter__(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        if self.window is not None:
            # Changed later they would count only when the server has acknowledged them.
            values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: self.window}
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.h2.initiate_connection()
        self.flush()
        self.until(lambda: self.had(h2.events.RemoteSettingsChanged))
        return self

    def __exit__(self, *_):
        self.socket.close()

    def had(self, kind):
        return any(isinstance(event, kind) for event in self.events)

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def request(self, method, path, body=None, fields=(), ends=True):
        """Sends a request as far as the windows allow, waiting for more of them; its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", f"127.0.0.1:{self.port}"), *fields]
        self.h2.send_headers(stream, head, end_stream=body is None and ends)
        self.answers[stream] = Answer()
        if body is not None:
            self.send(stream, body, ends)
        self.flush()
        return stream

    def send(self, stream, body, ends=True):
        while body:
            self.flush()
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.step()
                continue
            self.h2.send_data(stream, body[:room])
            body = body[room:]
        if ends:
            self.h2.end_stream(stream)
        self.flush()

    def step(self):
        """Takes what comes next; False at the end."""
        data = self.socket.recv(65536)
        if not data:
            return False
        for event in self.h2.receive_data(data):
            self.take(event)
        self.flush()
        return True

    def take(self, event):
        self.events.append(event)
        answer = self.answers.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
        elif answer is None:
            pass
        elif isinstance(event, h2.events.ResponseReceived):
            answer.fields = dict(event.headers)
            answer.status = int(answer.fields[":status"])
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.credits and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = event.error_code

    def until(self, is_so):
        deadline = time.monotonic() + SECONDS_MAX
        while not is_so():
            assert time.monotonic() < deadline, f"waited in vain; the last was {self.events[-3:]}"
            assert self.step(), f"the end came; the last was {self.events[-3:]}"

    def answer(self, stream):
        """Waits for the whole answer."""
        answer = self.answers[stream]
        self.until(lambda: answer.ended or answer.reset is not None)
        assert answer.reset in (None, 0), f"stream {stream} was reset with {answer.reset}"
        return answer

    def ask(self, *arguments, **named):
        return self.answer(self.request(*arguments, **named))

    def lines(self, stream):
        """The lines of an answer that does not end, as they come."""
        answer, at = self.answers[stream], 0
        while True:
            self.until(lambda: b"\n" in answer.body[at:] or answer.ended or answer.reset is not None)
            end = answer.body.find(b"\n", at)
            if end < 0:
                return
            yield answer.body[at:end].decode()
            at = end + 1
