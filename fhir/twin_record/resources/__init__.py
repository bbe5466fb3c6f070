"""One twin update as FHIR R4 resources of our own making; what the server already holds is merging's affair."""
