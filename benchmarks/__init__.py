"""The benchmark: this library compared with its peers and the plain SDK. ``python -m benchmarks``."""
