"""What the client is told (PROTOCOL 1.1, 1.4)."""

from pynsqd.wire.errors import E_BAD_PROTOCOL, E_INVALID, ClientError, FatalClientError, NsqError, StorageError


def test_the_payload_is_code_and_description() -> None:
    assert FatalClientError(E_INVALID, "no").payload == b"E_INVALID no"
    assert FatalClientError(E_BAD_PROTOCOL).payload == b"E_BAD_PROTOCOL"
    assert FatalClientError(E_INVALID, "no").code == "E_INVALID"
    assert FatalClientError(E_INVALID, "no").description == "no"


def test_bytes_that_are_no_text_come_back_as_they_came() -> None:
    raw = bytes(range(256))
    assert FatalClientError(E_INVALID, raw.decode("utf-8", "surrogateescape")).payload == b"E_INVALID " + raw


def test_the_two_classes_and_what_is_not_for_clients() -> None:
    assert issubclass(FatalClientError, ClientError)
    assert issubclass(StorageError, NsqError)
    assert not issubclass(StorageError, ClientError)
