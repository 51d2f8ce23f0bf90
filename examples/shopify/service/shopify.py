"""A receiver of Shopify's webhooks, as far as its secrets go.

POST /webhook   202 if X-Shopify-Hmac-Sha256 is right for the body, 401 if not
POST /reload    reads the secrets again; wants the header of /run/secrets/reload_header
GET /           which secrets are used, by their fingerprints, never the values
"""

import base64
import hashlib
import hmac
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = "/run/deaddrop"
FILES = ("shopify.env", "supabase.env", "smtp.env")
NEEDED = ("SHOPIFY_API_SECRET", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SMTP_PASSWORD")


def read_env(path):
    """The variables of a file in deaddrop's dialect "docker": what follows the first
    "=" of a line is the value, as it is."""
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = [line.removesuffix("\n").partition("=") for line in file]
    return {key: value for key, _, value in lines}


def fingerprint(value):
    return hashlib.sha256(value.encode()).hexdigest()[:12]


class Secrets:
    """The secrets in use: all of the old ones, or all of the new."""

    def __init__(self):
        self.loaded = 0
        self.variables = {}
        self.load()

    def load(self):
        variables = {}
        for name in FILES:
            variables |= read_env(os.path.join(FOLDER, name))
        missing = [key for key in NEEDED if not variables.get(key)]
        if missing:
            raise ValueError(f"missing: {', '.join(missing)}")
        self.variables = variables
        self.loaded += 1
        print(f"shopify: read {', '.join(FILES)}", flush=True)

    def is_from_shopify(self, body, signature):
        # Webhooks made by an app are signed with its API secret, those made in the
        # admin with a secret of their own.
        key = self.variables.get("SHOPIFY_WEBHOOK_SECRET") or self.variables["SHOPIFY_API_SECRET"]
        right = base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()
        return hmac.compare_digest(right.encode(), signature.encode())

    def shown(self):
        prints = {key: fingerprint(value) for key, value in self.variables.items()}
        return {"loaded": self.loaded, "fingerprints": prints}


def handler_for(secrets, reload_header):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200, json.dumps(secrets.shown(), sort_keys=True) + "\n")

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/webhook":
                known = secrets.is_from_shopify(body, self.headers.get("X-Shopify-Hmac-Sha256", ""))
                self.answer(202 if known else 401)
            elif self.path == "/reload":
                self.reload()
            else:
                self.answer(404)

        def reload(self):
            name, _, value = reload_header.partition(":")
            if not hmac.compare_digest(self.headers.get(name, "").encode(), value.strip().encode()):
                return self.answer(403)
            try:
                secrets.load()
            except (OSError, ValueError) as error:  # deaddrop logs it, and tries again
                return self.answer(503, f"the secrets stay as they were: {error}\n")
            return self.answer(204)

        def answer(self, status, text=""):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    return Handler


def main():
    with open("/run/secrets/reload_header", encoding="utf-8") as file:
        reload_header = file.read().strip()
    server = ThreadingHTTPServer(("", 8081), handler_for(Secrets(), reload_header))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"shopify: {error}")
