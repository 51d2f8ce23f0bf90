"""For the health check of docker-compose.yml: whether nexa answers."""

import sys
import urllib.request

try:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://127.0.0.1:8080/", timeout=3).close()
except OSError as error:
    sys.exit(f"nexa does not answer: {error}")
