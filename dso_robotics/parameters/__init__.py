"""The one vector theta: named blocks, bounds, transforms, priors and packing."""
