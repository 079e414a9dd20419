"""HTTP/2's flow control, as it is given back: in portions, and never for a stream that has ended."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from verbtrio.server.takeover.http2_credit import CONNECTION, CREDIT_BYTES, Credit

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]


def begun() -> tuple[H2Connection, H2Connection, int]:
    """A client, a server, and the stream of a request between them."""
    client, server = H2Connection(), H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    stream_id = client.get_next_available_stream_id()
    client.send_headers(stream_id, HEADERS)
    events = server.receive_data(client.data_to_send())
    assert any(isinstance(event, RequestReceived) for event in events)
    client.receive_data(server.data_to_send())
    return client, server, stream_id


def send(client: H2Connection, server: H2Connection, stream_id: int, count: int) -> None:
    """The client sends `count` bytes of a body."""
    while count:
        size = min(count, client.max_outbound_frame_size)
        client.send_data(stream_id, bytes(size))
        count -= size
    server.receive_data(client.data_to_send())


def test_it_is_given_back_in_portions() -> None:
    client, server, stream_id = begun()
    credit = Credit(server)
    send(client, server, stream_id, CREDIT_BYTES)
    window = client.local_flow_control_window(stream_id)
    for stream in (CONNECTION, stream_id):
        assert not credit.give(stream, CREDIT_BYTES - 1)
    assert not server.data_to_send()
    for stream in (CONNECTION, stream_id):
        assert credit.give(stream, 1)
    client.receive_data(server.data_to_send())
    assert client.local_flow_control_window(stream_id) == window + CREDIT_BYTES


def test_a_stream_that_has_ended_gets_none() -> None:
    client, server, stream_id = begun()
    credit = Credit(server)
    send(client, server, stream_id, CREDIT_BYTES)
    server.reset_stream(stream_id)
    assert not credit.give(stream_id, CREDIT_BYTES)


def test_what_is_owed_is_forgotten_with_its_stream() -> None:
    client, server, stream_id = begun()
    credit = Credit(server)
    send(client, server, stream_id, CREDIT_BYTES)
    assert not credit.give(stream_id, CREDIT_BYTES - 1)
    credit.forget(stream_id)
    assert not credit.give(stream_id, 1)
