"""Clients inside the cluster. `python3 -c` runs this file in a pod of the image itself, which has only Python.

Every second client keeps its connection and requests predictions. The others open a connection for each request, as new
clients of the Service do, and request /version. One line per second contains the counts of all clients.
"""

import json
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from pathlib import Path

host, port, clients, pause, records = sys.argv[1], *map(float, sys.argv[2:])
rows = json.loads(Path("/app/bundle/golden.json").read_text())["rows"]
body = json.dumps((rows * (int(records) // len(rows) + 1))[: int(records)])
lock = threading.Lock()
answers: Counter[str] = Counter()
failures: Counter[str] = Counter()
slowest = 0.0


def ask(connection: HTTPConnection, keeps: bool) -> str:
    """Return the bundle in the answer, with the commit if known. Raise OSError or HTTPException on failure."""
    method, path = ("POST", "/predict") if keeps else ("GET", "/version")
    connection.request(method, path, body if keeps else None, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise HTTPException(f"status {answer.status}")
    if keeps:
        return str(answer.headers["slipway-bundle"])
    provenance = json.loads(content)["provenance"]
    return f"{provenance['bundle']} {provenance['commit']}"


def client(keeps: bool) -> None:
    global slowest
    connection = HTTPConnection(host, int(port), timeout=10)
    while True:
        began, answered, failed = time.monotonic(), None, ""
        try:
            answered = ask(connection, keeps)
        except (OSError, HTTPException) as error:
            failed = f"{type(error).__name__} {error}"
        if failed or not keeps:
            connection.close()
        with lock:
            slowest = max(slowest, time.monotonic() - began)
            if answered:
                answers[answered] += 1
            else:
                failures[failed] += 1
        time.sleep(pause)


for number in range(int(clients)):
    threading.Thread(target=client, args=(number % 2 == 0,), daemon=True).start()
while True:
    time.sleep(1)
    with lock:
        print(json.dumps({"answers": answers, "failures": failures, "slowest": round(slowest, 3)}), flush=True)
        answers.clear()
        failures.clear()
        slowest = 0.0
