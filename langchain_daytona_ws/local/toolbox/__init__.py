"""The daemon that runs in every sandbox, as process 1 of an isolated one, like Daytona's own daemon.

It imports only the standard library and itself: the sandbox's Python (3.8 or later) runs a copy of this folder,
without the rest of this package. The server calls it over socket pairs (`wire`): one
connection per request, one thread per connection.
"""
