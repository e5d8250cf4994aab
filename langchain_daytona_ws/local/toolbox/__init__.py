"""What runs as process 1 of every sandbox: the counterpart of Daytona's in-sandbox daemon.

Standard library only and relative imports only: the folder is copied into the sandbox and run there by
whatever Python 3.8+ the sandbox has, where the rest of this package does not exist. The server talks to it
over a socket pair (`wire`), one connection a request, one thread a connection.
"""
