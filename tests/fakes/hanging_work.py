"""Work that never ends, for worker processes: as a reader on a dead network drive, or a GPU whose driver has hung."""

import threading


def hang(*_: object) -> None:
    """Wait for ever, whatever it is given."""
    threading.Event().wait()
