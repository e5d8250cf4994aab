"""The guest: code that runs inside the sandbox. Standard library only, Python 3.8 and later.

"Guest" as in virtual machines: the host is the process that uses this package, the guest runs in the sandbox. Nothing
is installed there. The first request for a set of modules carries their source, later requests the digest of the file
that keeps them (``_core/guest_rpc/payload.py``); ``python3 -I -S`` executes them, and ``boot.run`` calls
``main(request)`` of the requested module and prints one framed JSON answer. ``mounter`` and ``guard`` are separate
programs, which root executes.

Each call pays for its imports: prefer ``os`` and the built-in C modules, and import others in the function that needs
them; a test names modules that usual calls must not import. ``os`` itself takes 1 ms: the modules of a command use
``posix``, the built-in module from which ``os`` takes its functions. Modules marked "Pure; used by host and guest" also
run on the host.
"""
