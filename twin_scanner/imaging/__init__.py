"""What every room speaks: volumes with their geometry, NIfTI, SUV, the districts' labels."""
