"""A decoder of bundles that knows docs/formats and nothing of the other code."""
