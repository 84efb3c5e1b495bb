"""Files of weights: read by what they are, unwrapped by one rule, and refused by their own cause."""
