"""The synthetic PET series and what stands beside it, as DICOM files."""
