"""Check what this package relies on against a real Daytona account, and AWS if it is configured: `make live`."""
