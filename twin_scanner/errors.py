"""The one error tree, ordered by what the caller may do: try again, ask a person, tell the sender, or stop."""


class TwinScannerError(Exception):
    """The root; its text is one sentence that names the thing and says what to do."""


class Transient(TwinScannerError):
    """The world is at fault (network, disk, killed worker): trying again later may succeed."""


class Unavailable(Transient):
    """A peer as a whole serves nobody at the moment: whatever else is meant for it may wait as well."""

    retry_after_s: float = 0.0
    """For how long the peer itself asks to be left alone."""


class Held(TwinScannerError):
    """A person must decide (identity, evidence, approval, one refused object): everything is kept until then."""

    held_for: str = ""
    """What the decision is about, where more than a person's word may settle it."""


class Rejected(TwinScannerError):
    """The input is wrong: tell the sender why; trying again changes nothing."""


class Misconfigured(Rejected):
    """The configuration asks for what cannot be: the operator corrects it before anything starts."""


class Defect(TwinScannerError):
    """Our own fault: stop and report."""
