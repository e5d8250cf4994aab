"""Read the answers of S3 in the sandbox: the properties of an object, a page of a listing, an error."""

from __future__ import annotations

import functools
import hashlib
import re
import stat
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client

_CONTENTS = (b"<Contents>", b"</Contents>")


class S3Error(Exception):
    """S3 refused a request, or did not answer it. A pull or push also raises this error for a failed local file.

    ``code`` is the kind of the failure, not S3's error code.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class ObjectProperties:
    def __init__(self, headers: http.client.HTTPMessage) -> None:
        self.etag = etag_of(headers)
        self.modified = headers["Last-Modified"] or ""
        self.range = headers["Content-Range"] or ""
        size = self.range.rpartition("/")[2] or headers["Content-Length"] or ""
        self.size = int(size) if re.fullmatch("[0-9]{1,18}", size) else 0
        mode = headers["x-amz-meta-file-permissions"] or ""
        self.mode = int(mode, 8) if re.fullmatch("0*1?[0-7]{1,5}", mode) else 0
        if self.mode and not stat.S_IFMT(self.mode):
            self.mode |= stat.S_IFREG
        mtime = re.fullmatch("(-?[0-9]{1,20})ns", headers["x-amz-meta-file-mtime"] or "")
        self.mtime_ns = int(mtime[1]) if mtime else None


class Page:
    """One page of a listing. Its objects are parsed only when `objects` is called.

    Raises:
        S3Error: The text is no complete listing. The error page of a proxy must not look like an empty prefix.
    """

    def __init__(self, text: bytes, prefix: str) -> None:
        start, end = text.find(_CONTENTS[0]), text.rfind(_CONTENTS[1])
        self._contents = text[start : end + len(_CONTENTS[1])] if start >= 0 else b""
        frame = text if start < 0 else text[:start] + text[end + len(_CONTENTS[1]) :]
        fields: dict[str, str] = {}
        try:
            root = ElementTree.fromstring(frame)  # noqa: S314 - expat limits entities
            if root.tag.rpartition("}")[2] == "ListBucketResult":
                fields = {field.tag.rpartition("}")[2]: field.text or "" for field in root}
        except (ElementTree.ParseError, LookupError, ValueError):
            pass
        if fields.get("IsTruncated") not in ("true", "false"):
            raise S3Error("unavailable", "the answer is not a listing")
        self.has_more = fields["IsTruncated"] == "true"
        self._is_encoded = fields.get("EncodingType") == "url"
        self._count = fields.get("KeyCount")
        self._prefix = prefix
        # Digest of the objects only: the rest of the page may differ each time.
        self.digest = hashlib.md5(self._contents).digest()  # noqa: S324 - compared with that of an earlier listing

    def objects(self) -> list[tuple[str, str, int, str]]:
        """Return for each object: key relative to the prefix, ETag, size in bytes, time of the last change.

        Raises:
            S3Error: The page is incomplete.
        """
        found, count = [], 0
        try:
            for item in ElementTree.fromstring(b"<L>%s</L>" % self._contents):  # noqa: S314 - as above
                count += 1
                values = {field.tag: field.text or "" for field in item}
                key = unquote_plus(values["Key"]) if self._is_encoded else values["Key"]
                if key.startswith(self._prefix) and key != self._prefix:
                    found.append(
                        (
                            key[len(self._prefix) :],
                            values["ETag"].strip('"'),
                            int(values["Size"]),
                            values["LastModified"],
                        )
                    )
        except (ElementTree.ParseError, LookupError, ValueError):
            raise S3Error("unavailable", "the listing is not complete") from None
        if self._count is not None and self._count != str(count):
            raise S3Error(
                "unavailable", "the listing has %d objects in place of %s" % (count, self._count[:20])
            )
        return found


def text_of(document: bytes, name: str) -> str:
    """Return the text of the first XML element with this name, in any namespace; "" if there is none."""
    try:
        for element in ElementTree.fromstring(document).iter():  # noqa: S314 - as above
            if element.tag.rpartition("}")[2] == name:
                return element.text or ""
    except (ElementTree.ParseError, LookupError, ValueError):
        pass  # not XML: a proxy's page, or an empty answer
    return ""


@functools.lru_cache(maxsize=64)  # many answers of one second have the same date
def unix_time(date: str | None) -> float:
    """Return the time of a ``Date`` or ``Last-Modified`` header in Unix seconds; 0 if it is missing or malformed."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0


def etag_of(headers: http.client.HTTPMessage) -> str:
    """Return the ETag of an answer.

    Raises:
        S3Error: The answer has no ETag: it comes from a proxy, and nothing was read or stored.
    """
    etag = headers["ETag"]
    if not etag:
        raise S3Error("unavailable", "the answer is not one of S3: it has no ETag")
    return str(etag).strip('"')
