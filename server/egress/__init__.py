"""The way out of workers: a door per turn, a proxy for HTTP with a list of who may be called, and Envoy behind it."""
