"""sekmet_process.py PORT SETTINGS: sekmet-fhir as shipped at http://127.0.0.1:PORT/fhir; prints "ready PORT".

It runs in the environment of install.sh and imports nothing of ours. SETTINGS is sekmet's own Settings as JSON.
"""

import json
import socket
import sys

import uvicorn
from sekmet.config import Settings
from sekmet.main import create_app


def main(port: int, settings: dict[str, object]) -> None:
    """Serve until the process ends."""
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    port = listener.getsockname()[1]
    # What a hospital's other systems do by themselves, and a log of every body, belong to no test of ours.
    quiet: dict[str, object] = {"simulator": {"enabled": False}, "log_inbound": False, "db_path": ":memory:"}
    found = Settings.model_validate({"base_url": f"http://127.0.0.1:{port}/fhir", **quiet, **settings})
    server = uvicorn.Server(uvicorn.Config(create_app(found), log_level="error"))
    print("ready", port, flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
