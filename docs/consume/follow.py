#!/usr/bin/env python3
"""Follows Dunlin's feed and prints each event as a line of JSON. The standard library is all that it needs.

    DUNLIN_URL=https://collector.example.net:9738 DUNLIN_TOKEN_FILE=token DUNLIN_CA=ca.pem \\
        follow.py CURSOR_FILE [KIND ...]

KIND is alert.* unless it is given. Put what you do with an event in the place of `handle`.

Nothing is missed: the cursor is kept once an event is handled, and a start goes on behind it. Whoever is killed in between
meets that one event again, under the same cursor: use it as a key where twice would be once too often.
"""

import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

WAIT_S = 30
PAUSE_S_MAX = 30


def handle(event):
    print(json.dumps(event, ensure_ascii=False, separators=(",", ":")), flush=True)


class Gone(Exception):
    """The cursor is older than what is kept, or of another life of the collector."""

    def __init__(self, earliest):
        super().__init__(earliest)
        self.earliest = earliest


class Refused(Exception):
    """What no second try makes right: a token, a name."""


class Feed:
    def __init__(self, kinds):
        self.url = os.environ["DUNLIN_URL"].rstrip("/")
        with open(os.environ["DUNLIN_TOKEN_FILE"], encoding="ascii") as file:
            self.token = file.read().strip()
        ca = os.environ.get("DUNLIN_CA")
        self.context = ssl.create_default_context(cafile=ca) if self.url.startswith("https:") else None
        self.kinds = kinds

    def after(self, cursor):
        """Events behind a cursor, or from the earliest on; the collector waits for the first of them."""
        query = [("wait", f"{WAIT_S}s")] + [("kind", kind) for kind in self.kinds]
        if cursor:
            query.append(("after", cursor))
        request = urllib.request.Request(
            f"{self.url}/api/v1/events?{urllib.parse.urlencode(query)}",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S + 30, context=self.context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read() or b"{}") if error.code < 500 else {}
            if error.code == 410:
                raise Gone(problem["earliest"]) from error
            if 400 <= error.code < 500 and error.code != 429:
                raise Refused(problem.get("detail", str(error))) from error
            raise


def read_cursor(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def keep_cursor(path, cursor):
    """Whole or not at all: a new file takes the place of the old one."""
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(f"{cursor}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


def follow(feed, path):
    cursor, pause_s = read_cursor(path), 1
    while True:
        try:
            answer = feed.after(cursor)
        except Gone as gone:
            print(f"what lies between {cursor} and {gone.earliest} is lost", file=sys.stderr, flush=True)
            cursor = gone.earliest
            keep_cursor(path, cursor)
            continue
        # No connection, a restart, an answer that was cut off: it will be back.
        except (OSError, ValueError, http.client.HTTPException) as error:
            print(f"again in {pause_s} s: {error}", file=sys.stderr, flush=True)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
            continue
        pause_s = 1
        for event in answer["items"]:
            handle(event)
            keep_cursor(path, event["cursor"])
        # Behind what other kinds there were as well.
        if answer["next"] != cursor:
            cursor = answer["next"]
            keep_cursor(path, cursor)


def main():
    if len(sys.argv) < 2 or not {"DUNLIN_URL", "DUNLIN_TOKEN_FILE"} <= os.environ.keys():
        print(__doc__, file=sys.stderr)
        return 2
    try:
        follow(Feed(sys.argv[2:] or ["alert.*"]), sys.argv[1])
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
