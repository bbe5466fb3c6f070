"""The audit trail: whether the chain of events holds, and DICOM's audit messages to a syslog server."""
