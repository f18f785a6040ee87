"""gRPC to kernel calls and back. Decides nothing."""
