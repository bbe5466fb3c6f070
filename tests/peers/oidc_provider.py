"""Starts the OpenID Connect provider of oidc/ (npm's oidc-provider) and logs in at it as a person's browser does."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

PROGRAM = Path(__file__).resolve().parent / "oidc"
STOP_S = 10.0
MOST_STEPS = 12


def is_installed() -> bool:
    """Whether node and the package are here."""
    return shutil.which("node") is not None and (PROGRAM / "node_modules" / "oidc-provider").is_dir()


@contextmanager
def running_provider(redirect_uri: str, secret: str) -> Iterator[str]:
    """The issuer of a fresh provider, which knows one client named "console"; it is stopped at the end."""
    command = ["node", str(PROGRAM / "provider.mjs"), redirect_uri, secret]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready "):
                yield line.split()[1]
                break
        else:
            raise RuntimeError("the OpenID Connect provider did not start")
    finally:
        process.terminate()
        process.wait(STOP_S)
        if process.stdout is not None:
            process.stdout.close()


def log_in_at(address: str, account: str, redirect_uri: str) -> str:
    """Follow the provider's pages from its authorization address on; the address at which it sends the browser back."""
    with httpx.Client(follow_redirects=False) as browser:
        answer = browser.get(address)
        for _ in range(MOST_STEPS):
            if answer.is_redirect:
                following = urljoin(str(answer.url), answer.headers["location"])
                if following.startswith(redirect_uri):
                    return following
                answer = browser.get(following)
                continue
            action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
            assert action is not None, answer.text
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            fields = {"prompt": prompt.group(1) if prompt else "login", "login": account, "password": "any"}
            answer = browser.post(urljoin(f"http://{urlsplit(str(answer.url)).netloc}", action.group(1)), data=fields)
    raise AssertionError("the provider never sent the browser back")
