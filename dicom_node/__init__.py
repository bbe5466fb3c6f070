"""The DICOM network node: receives, keeps, completes and sends; the only home of pynetdicom."""
