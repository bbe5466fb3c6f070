"""DICOM files in and out, with pydicom and highdicom; no network here."""
