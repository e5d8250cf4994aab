"""The demo: an agent repairs a real package on a local Daytona (``make demo``)."""
