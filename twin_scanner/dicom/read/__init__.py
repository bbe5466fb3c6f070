"""CT and PET series, and segmentations, from their files: exact or refused."""
