"""One transaction sent, and what its answer says was written."""

from twin_record.endpoint import BundleEndpoint, answered_entries, is_success, location_of, status_of
from twin_record.refusals import Conflict, entry_failure, private_words
from twin_record.resources.content import Resource


def executed(transaction: Resource, endpoint: BundleEndpoint) -> tuple[str, ...]:
    """The literal references of what was written; one failed entry is the failure of all.

    A server that is not atomic answers 200 with failed entries inside. A conditional create that found something
    (200 instead of 201) means that somebody created it after we read: our part is not merged into it yet.
    """
    written = []
    for entry, answer in answered_entries(transaction, endpoint):
        status = status_of(answer)
        if not is_success(answer):
            raise entry_failure(status, answer.get("response", {}).get("outcome"), private_words(transaction))
        if entry["request"]["method"] == "POST" and status == 200:
            raise Conflict("Somebody created the same resource on the FHIR server at the same time; try again.")
        written.append(location_of(entry, answer))
    return tuple(written)
