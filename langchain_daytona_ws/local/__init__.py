"""A local, Daytona-compatible server for tests, demos and work without an account."""
