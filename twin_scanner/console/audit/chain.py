"""Whether the events are as they were written: each node's hash chain, to its end."""

from dataclasses import dataclass

from twin_scanner.service.ledger import Break, Chain, Ledger


@dataclass(frozen=True)
class Verdict:
    """Of one node: its chain's end as the ledger has it, and where it does not hold."""

    chain: Chain
    broken: Break | None

    @property
    def sentence(self) -> str:
        """For a person."""
        if self.broken is None:
            return f"{self.chain.node}: the chain holds up to event {self.chain.event_id}, hash {self.chain.hash}"
        if self.broken.event is None:
            return f"{self.chain.node}: events after event {self.broken.event_id} are missing at the end of the chain"
        return f"{self.chain.node}: event {self.broken.event_id} was changed, or one before it was changed or removed"


def verify(ledger: Ledger) -> list[Verdict]:
    """The verdict on each node that has noted anything."""
    return [Verdict(chain, ledger.events.first_break(chain.node)) for chain in ledger.events.chains()]
