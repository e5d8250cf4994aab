"""Bound what an answer of S3 or STS takes of memory: botocore reads whatever it is sent to its end, if it has one.

Imports botocore, which takes long: import this where that holds up nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import BotoCoreError, HTTPClientError
from urllib3.exceptions import HTTPError

# A listing of 1,000 keys of 1,024 bytes, each written as a character reference of six, and what stands beside them.
LONGEST_ANSWER_BYTES = 8 << 20


class AnswerTooLong(BotoCoreError):
    """An answer that is no file's content goes on beyond all that it could have to say."""

    fmt = "The answer has more than {limit_bytes} bytes."


def bound_answers(client: Any) -> None:
    """Let a client of boto3 read at most 8 MiB of an answer, unless that is a file's content.

    Of such a content as much is read as its reader asks for.
    """
    endpoint = client._endpoint  # botocore has no public way to the sending of requests
    endpoint.http_session = _Bounded(endpoint.http_session)


class _Bounded:
    """botocore's session of connections, whose answers have an end.

    Args:
        session: What sends.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        is_content = request.stream_output
        request.stream_output = True  # so that nothing of the answer is read yet
        answer: Any = self._session.send(request)
        if is_content and answer.status_code < 300:
            return answer
        return AWSResponse(answer.url, answer.status_code, answer.headers, _Read(_all_of(answer.raw)))

    def close(self) -> None:
        self._session.close()


class _Read:
    """A body that has been read, as botocore takes one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self) -> Iterator[bytes]:
        yield self._data


def _all_of(raw: Any) -> bytes:
    try:
        data: bytes = raw.read(LONGEST_ANSWER_BYTES + 1)
    except (HTTPError, HTTPException, OSError) as error:
        raise HTTPClientError(error=type(error).__name__) from None  # which botocore tries again
    if len(data) > LONGEST_ANSWER_BYTES:
        raw.close()
        raise AnswerTooLong(limit_bytes=LONGEST_ANSWER_BYTES)
    return data
