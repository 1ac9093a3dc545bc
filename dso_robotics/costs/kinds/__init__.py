"""Kinds of cost, a file for each or for a few alike; all are found here, see `costs.kind.COSTS`."""
