"""What HTTP clients read: answers in JSON, and streams of events."""

import json


class Event:
    """One event of a stream: its name, its id and its data."""

    def __init__(self, name, cursor, data):
        self.name, self.cursor, self.data = name, cursor, data

    def __repr__(self):
        return f"Event({self.name!r}, {self.cursor!r}, {self.data!r})"


def events(lines):
    """The events in an iterator of lines without their ends, as the standard has them: those without data are none.

    What a stream begins with, which only says where it stands, is left out."""
    name, cursor, data = "message", "", []
    for line in lines:
        if line == "":
            if data and name != "start":
                yield Event(name, cursor, "\n".join(data))
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            cursor = value
        else:
            assert field in ("", "retry"), f"an unknown field: {line!r}"


def cursor(place):
    """`epoch:offset` of a message or of an answer to a publication."""
    return f"{place['epoch']}:{place['offset']}"


def check_error(body, code=None):
    """An error is `{"error":{"code","message"}}` and nothing else."""
    error = json.loads(body)
    assert list(error) == ["error"], error
    assert list(error["error"]) == ["code", "message"], error
    assert all(isinstance(value, str) and value for value in error["error"].values()), error
    assert code is None or error["error"]["code"] == code, error
    assert body.endswith("}\n"), body
