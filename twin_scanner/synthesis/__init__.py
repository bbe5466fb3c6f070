"""CT in, synthetic PET out: the method, its uncertainty and its explanation; arrays only."""
