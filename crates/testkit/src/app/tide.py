"""Tells the tide at a fictitious pier, as JSON: height in metres over chart datum, and whether it rises."""
import json
import math
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "1"
PERIOD = 12.42 * 3600
RANGE = 3.1


def height(now):
    return round(RANGE / 2 * (1 + math.sin(2 * math.pi * now / PERIOD)), 2)


def report(now):
    rises = height(now + 60) >= height(now)
    answer = {"pier": "north", "height": height(now), "rises": rises, "version": VERSION}
    # v2: answer["next_hour"] = height(now + 3600)
    return answer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = VERSION if self.path == "/version" else json.dumps(report(time.time()))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", 8080), Handler).serve_forever()
