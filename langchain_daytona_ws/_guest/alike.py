"""Look-alike spaces, quotes and dashes, and invisible characters. Pure; used by host and guest."""

from __future__ import annotations

SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
SINGLE_QUOTES = "\u2018\u2019\u201a\u201b\u2032\u02bc"
DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u2033"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
INVISIBLE = (
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)

_PLAIN = {
    **dict.fromkeys(map(ord, SPACES), " "),
    **dict.fromkeys(map(ord, SINGLE_QUOTES), "'"),
    **dict.fromkeys(map(ord, DOUBLE_QUOTES), '"'),
    **dict.fromkeys(map(ord, DASHES), "-"),
    **dict.fromkeys(map(ord, INVISIBLE), None),
}


def plain(text: str) -> str:
    """Return the text in Unicode's NFC form, with ASCII for look-alikes and without invisible characters."""
    import unicodedata  # imported late: needed only if a text or name was not found

    return unicodedata.normalize("NFC", text.translate(_PLAIN))


def forms(text: str) -> list[str]:
    """Return the text, and its Unicode forms NFC and NFD if they differ from it."""
    import unicodedata

    found = [text]
    for form in (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)):
        if form not in found:
            found.append(form)
    return found


def name_key(name: str) -> str:
    """Return a key to compare names.

    Names have the same key if they differ only in case, Unicode form, look-alike or invisible characters, backslashes,
    or surrounding quotes and spaces.
    """
    return plain(plain(name).replace("\\", "").strip(" \"'").casefold())
