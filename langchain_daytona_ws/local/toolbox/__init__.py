"""The daemon that runs in every sandbox, like Daytona's own daemon. In an isolated sandbox it is process 1.

This package imports only the standard library and itself: the sandbox's Python (3.8 or later) runs a copy of this
folder, without the rest of the project. The server calls the daemon over socket pairs (`wire`): one connection per
request, one thread per connection.
"""
