"""Asks a server for its health, again and again, each time on a new connection; prints how long each answer took.

A process of its own, so that what the tests do at the same time does not count. Ends when its input does.
"""

import http.client
import sys
import threading
import time


def probe(host: str, port: int) -> float:
    """Seconds until health has answered."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/api/health")
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    assert b'"status":"ok"' in answer.read()
    connection.close()
    return time.monotonic() - began


def main() -> None:
    """``health_probe.py HOST PORT``."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.wait(0.1):
        print(probe(sys.argv[1], int(sys.argv[2])), flush=True)


if __name__ == "__main__":
    main()
