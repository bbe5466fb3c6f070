#!/usr/bin/env python3
"""Asks the node on this machine whether it is well: ends with 0 where TWIN_SCANNER_HEALTH_URL answers 200, else with 1.

It is for HEALTHCHECK of an image and for probes of Kubernetes, needs no other package, and trusts any certificate, for
it asks its own machine alone.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

DEFAULT_URL = "http://127.0.0.1:8080/healthz"
TIMEOUT_S = 5.0


def main(url: str) -> int:
    """Ask once; what is wrong goes to stderr."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310 (our own URL)
            return 0 if answer.status == 200 else 1
    except (urllib.error.URLError, OSError) as error:
        sys.stderr.write(f"{url} does not say that the node is well: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TWIN_SCANNER_HEALTH_URL", DEFAULT_URL)))
