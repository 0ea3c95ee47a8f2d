"""What can go wrong, as data: one code and one text for the client (PROTOCOL 1.4)."""

from typing import Final

E_INVALID: Final = "E_INVALID"
E_BAD_PROTOCOL: Final = "E_BAD_PROTOCOL"
E_BAD_BODY: Final = "E_BAD_BODY"
E_BAD_TOPIC: Final = "E_BAD_TOPIC"
E_BAD_CHANNEL: Final = "E_BAD_CHANNEL"
E_BAD_MESSAGE: Final = "E_BAD_MESSAGE"
E_IDENTIFY_FAILED: Final = "E_IDENTIFY_FAILED"
E_SUB_FAILED: Final = "E_SUB_FAILED"
E_AUTH_DISABLED: Final = "E_AUTH_DISABLED"
E_AUTH_FAILED: Final = "E_AUTH_FAILED"
E_AUTH_FIRST: Final = "E_AUTH_FIRST"
E_UNAUTHORIZED: Final = "E_UNAUTHORIZED"


class NsqError(Exception):
    """Anything that this project raises on purpose."""


class ClientError(NsqError):
    """The client is told and the connection lives on: only E_FIN_FAILED, E_REQ_FAILED and E_TOUCH_FAILED."""

    def __init__(self, code: str, description: str = "") -> None:
        super().__init__(f"{code} {description}" if description else code)
        self.code = code
        self.description = description

    @property
    def payload(self) -> bytes:
        """The payload of the error frame; bytes that were no UTF-8 go back as they came."""
        return str(self).encode("utf-8", "surrogateescape")


class FatalClientError(ClientError):
    """The client is told, then the connection is closed."""


def invalid(description: str) -> FatalClientError:
    """Return the error for a command that is wrong or not allowed now."""
    return FatalClientError(E_INVALID, description)


def failed(verb: str, cause: object) -> FatalClientError:
    """Return the error for a ``verb`` that the node could not carry out, and why."""
    return FatalClientError(f"E_{verb}_FAILED", f"{verb} failed {cause}")


class StorageError(NsqError):
    """The log or the metadata could not be read or written; the text names the file and the cause."""


class LimitReached(NsqError):
    """There may be no more of something, as an option says; the text is for V2 clients, ``code`` for HTTP."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Draining(StorageError):
    """The node takes no more messages, because it is drained before it stops; another one may."""

    def __init__(self) -> None:
        super().__init__("exiting")  # what nsqd says when it stops


class StartupError(NsqError):
    """The daemon cannot start; the text is one line for the operator."""
