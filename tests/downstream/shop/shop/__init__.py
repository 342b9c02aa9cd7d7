"""A shop: it takes orders over HTTP, and leaves everything that may wait to Chancy."""
