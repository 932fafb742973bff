"""Downloads files: bounded in time and size, and by one process at a time where others would do the same."""

from __future__ import annotations

import http.client
import time
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from era_cnn.errors import DataError
from era_cnn.output import complain
from era_cnn.sharing import one_at_a_time

SILENCE_SECONDS = 30.0
"""How long a server or a proxy may send nothing."""

MOST_SECONDS = 1_800.0
"""How long one file may take in all."""

WAIT_SECONDS = 600.0
"""How long to wait for another process that downloads the same."""


def fetch(url: str, most_bytes: int) -> bytes:
    """Downloads a file, and reports its progress to standard error.

    Raises:
        OSError: If the server can't be reached, sends nothing for a while, or sends too much or too slowly.
    """
    complain(f"Downloading {url} (gives up after {SILENCE_SECONDS:.0f} seconds without an answer)")
    content, shown_at, began = bytearray(), time.monotonic(), time.monotonic()
    try:
        opener = urllib.request.build_opener()  # unlike urlopen's, it reads the environment's proxies each time
        with opener.open(url, timeout=SILENCE_SECONDS) as response:
            while part := response.read1(65_536):
                content += part
                if len(content) > most_bytes:
                    raise OSError(f"more than {most_bytes:,} bytes")
                if (now := time.monotonic()) - began > MOST_SECONDS:
                    raise TimeoutError(f"only {len(content):,} bytes in {MOST_SECONDS:.0f} seconds")
                if now - shown_at > PROGRESS_SECONDS:
                    complain(f"Downloading {url}: {len(content):,} bytes")
                    shown_at = now
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return bytes(content)


PROGRESS_SECONDS = 5.0


def one_download_at_a_time(folder: Path, name: str) -> AbstractContextManager[bool]:
    """Waits while another process downloads the same data set to a folder, which need not exist yet.

    Raises:
        DataError: If it does not end.
        OSError: If nothing can be written there.
    """
    return one_at_a_time(folder, f"downloads {name} to", wait_seconds=WAIT_SECONDS, wanted="The data", error=DataError)
