"""The way in: Envoy, one listener for gRPC, gRPC-web, JSON and server-sent events."""
