"""The one error tree, ordered by what the caller may do: try again, tell the sender, or stop."""


class TwinScannerError(Exception):
    """The root; its text is one sentence that names the thing and says what to do."""


class Transient(TwinScannerError):
    """The world is at fault (network, disk, killed worker): trying again later may succeed."""


class Rejected(TwinScannerError):
    """The input is wrong: tell the sender why; trying again changes nothing."""


class Defect(TwinScannerError):
    """Our own fault: stop and report."""
