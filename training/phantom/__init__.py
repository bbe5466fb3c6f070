"""Parametric whole-body CT/PET pairs with known districts and lesions."""
