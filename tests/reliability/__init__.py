"""The reliability suite: faults, load and races against the running service. `make test-reliability` runs it at full size."""
