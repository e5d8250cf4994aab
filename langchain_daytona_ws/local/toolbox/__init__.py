"""The daemon that runs as process 1 of every sandbox, like Daytona's own daemon.

It imports only the standard library and itself: the folder is copied into the sandbox and run by the sandbox's
Python (3.8 or later), without the rest of this package. The server calls it over socket pairs (`wire`): one
connection per request, one thread per connection.
"""
