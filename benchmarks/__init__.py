"""How fast it is, against the floor and against what people use instead; run by `make bench`.

Every comparison runs both sides in one run on one machine, pair by pair, and
tells medians and the median of the pairs' ratios: on a machine that others use
too, only what ran side by side can be compared.
"""
