"""Nexa, as far as its secrets go: reads them from a .env file, and again on SIGHUP.

GET / says which secrets it uses, by their fingerprints, never the values. A fingerprint
gives away nothing of a long random secret; do not show one of a short password.
"""

import hashlib
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def read_env(path):
    """The variables of a file in deaddrop's dialect "docker": what follows the first
    "=" of a line is the value, as it is. There are no quotes and no escapes."""
    variables = {}
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            key, is_pair, value = line.removesuffix("\n").partition("=")
            if not is_pair or not key.isidentifier():
                raise ValueError(f"{path}: line {number} is not KEY=value")
            variables[key] = value
    return variables


def fingerprint(value):
    return hashlib.sha256(value.encode()).hexdigest()[:12]


class Secrets:
    """The secrets in use. A request takes them all at once, and so never sees half of
    the old ones and half of the new."""

    def __init__(self, path):
        self.path = path
        self.loaded = 0
        self.variables = {}
        self.load()

    def load(self):
        variables = read_env(self.path)
        if not variables.get("NEXA_API_KEY"):
            raise ValueError(f"{self.path}: NEXA_API_KEY is missing")
        self.variables = variables
        self.loaded += 1
        print(f"nexa: read {self.path}: {', '.join(sorted(variables))}", flush=True)

    def reload(self):
        try:
            self.load()
        except (OSError, ValueError) as error:
            print(f"nexa: the secrets stay as they were: {error}", file=sys.stderr, flush=True)

    def shown(self):
        return {
            "loaded": self.loaded,
            "pid": os.getpid(),
            "fingerprints": {key: fingerprint(value) for key, value in self.variables.items()},
        }


def handler_for(secrets):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = (json.dumps(secrets.shown(), sort_keys=True) + "\n").encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def main():
    secrets = Secrets(sys.argv[1])
    signals = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}
    # Waited for in one place, below, instead of in handlers that interrupt something.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = ThreadingHTTPServer(("", 8080), handler_for(secrets))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while signal.sigwait(signals) == signal.SIGHUP:
        secrets.reload()
    server.shutdown()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"nexa: {error}")
