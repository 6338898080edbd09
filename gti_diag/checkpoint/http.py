"""HTTP, as fsspec speaks it, within limits: no more bytes than were asked for, and no waiting without end.

Import it inside functions: aiohttp is an extra.
"""

import asyncio
import os
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from gti_diag.errors import InputError

from .places import SMALL_FILE
from .records import bad

TIMEOUT = "GTI_TIMEOUT"  # seconds without an answer, or without more of it
SLOWEST = 10_000  # bytes a second of an answer as a whole
CHUNK = 1 << 16


def patience() -> float:
    """Seconds to wait for a server: 20, or what GTI_TIMEOUT says.

    Raises:
        InputError: GTI_TIMEOUT is no number of seconds.
    """
    given = os.environ.get(TIMEOUT, "20")
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise InputError(f"{TIMEOUT}={given!r} is no number of seconds: write it like {TIMEOUT}=120")
    return seconds


class CountedHTTP(HTTPFileSystem):
    """fsspec's file system, of whose answers only what was asked for is taken."""

    cachable = False  # a limit belongs to one command

    def __init__(self, **options: Any) -> None:
        self.seconds = patience()
        waiting = aiohttp.ClientTimeout(total=None, sock_connect=self.seconds, sock_read=self.seconds)
        super().__init__(client_kwargs={"timeout": waiting}, **options)

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        ranged = start is not None and end is not None
        most = end - start if ranged else SMALL_FILE  # type: ignore[operator]
        if ranged and most <= 0:
            return b""
        headers = {"Range": f"bytes={start}-{end - 1}"} if ranged else {}  # type: ignore[operator]
        try:
            return await asyncio.wait_for(self._received(url, headers, most), self.seconds + most / SLOWEST)
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise self._slow(url) from error

    async def _received(self, url: str, headers: dict[str, str], most: int) -> bytes:
        session, found = await self.set_session(), bytearray()
        async with session.get(self.encode_url(url), headers=headers) as answer:
            self._raise_not_found_for_status(answer, url)
            async for part in answer.content.iter_chunked(CHUNK):
                found += part
                if len(found) > most:
                    raise bad(
                        url, f"sends more than the {most:,} bytes that were asked for", "its server ignores ranges"
                    )
        return bytes(found)

    async def _isfile(self, path: str) -> bool:
        try:
            return bool(await self._info(path))
        except Exception as error:  # whatever a server says that is not "here it is"
            if isinstance(error.__cause__ or error, (asyncio.TimeoutError, TimeoutError)):
                raise self._slow(path) from error
            return False

    def _slow(self, url: str) -> InputError:
        return bad(
            url, f"does not answer within {self.seconds:g} s", f"try again, or wait longer with {TIMEOUT}=SECONDS"
        )
