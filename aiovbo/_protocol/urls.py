"""Links of the API to the URLs that are requested: on the server's configured address, and nowhere else.

Knows URLs, and that every text of a server may be hostile; knows nothing of what is requested there.
"""

import re

from yarl import URL

from aiovbo.errors import LinkError, printable

_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_ESCAPING = re.compile(r"(?i)(^|/)(\.|%2e){1,2}(/|$)|//|%2f|%5c|%00")
_HREF_LIMIT = 8192


def resolve_link(base: URL, version: str, href: str, requested: str) -> URL:
    """The URL to request for a link: its path and query, on the server's configured address.

    The host in a link is the server's own name, often one that clients cannot reach, and could be anybody's:
    it is never queried. `requested` is the path of the request that brought the link, for relative ones.

    Raises: LinkError where the path is not under the API's own `/vN/`.
    """
    target = _path_and_query(href, requested)
    path = target.partition("?")[0]
    prefix = base.raw_path.rstrip("/")
    if prefix and path.lower().startswith(f"{prefix.lower()}/"):
        target, path = target[len(prefix) :], path[len(prefix) :]
    if _ESCAPING.search(path) or not path.lower().startswith(f"/{version}/"):
        raise _unsafe(href, f"its path is not under /{version}/")
    return url_for(base, target)


def url_for(base: URL, target: str) -> URL:
    """The URL of `target` (path and query, encoded) on a server, byte for byte."""
    path, _, query = target.partition("?")
    return URL.build(
        scheme=base.scheme,
        authority=base.raw_authority,
        path=base.raw_path.rstrip("/") + path,
        query_string=query,
        encoded=True,
    )


def _path_and_query(href: str, requested: str) -> str:
    if len(href) > _HREF_LIMIT:
        raise _unsafe(href, "it is absurdly long")
    if _UNSAFE.search(href) or not href.isascii():
        raise _unsafe(href, "it has characters that a URL cannot have")
    text = href.partition("#")[0]
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme:
        if not re.match(r"(?i)https?://[^/?]", text):
            raise _unsafe(href, "it is no http address")
        text = text[scheme.end() :]
    if text.startswith("//"):
        authority, slash, rest = text[2:].partition("/")
        if not slash or "?" in authority:
            raise _unsafe(href, "it has no path")
        return f"/{rest}"
    if text.startswith("/"):
        return text
    path = requested.partition("?")[0]
    if text.startswith("?"):
        return path + text
    if not text:
        raise _unsafe(href, "it is empty")
    return f"{path.rpartition('/')[0]}/{text}"


def _unsafe(href: str, why: str) -> LinkError:
    # Without its query, where a gateway may have put the token that it was sent.
    return LinkError(f"the link {printable(href.partition('?')[0])!r} is not followed: {why}")
