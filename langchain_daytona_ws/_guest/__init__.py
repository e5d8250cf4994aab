"""The guest: code that runs inside the sandbox. Standard library only, Python 3.8 and later.

"Guest" as in virtual machines: the host is the process that uses this package, the guest runs in the sandbox. Nothing
is installed there. With each request ``_core/script.py`` sends the source of the modules that the request needs;
``python3 -I -S`` executes them, and ``boot.run`` calls ``main(request)`` of the requested module and prints one framed
JSON answer. ``mounter`` and ``guard`` are separate programs, which root executes.

Each call pays for its imports: prefer ``os`` and the built-in C modules. Modules marked "Pure; used by host and guest"
also run on the host.
"""
