"""The benchmark: what this library costs beside its peers and the plain SDK. ``python -m benchmarks``."""
