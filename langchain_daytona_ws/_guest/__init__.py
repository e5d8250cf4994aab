"""The guest: code that runs inside the sandbox. Standard library only, Python 3.8 and later.

As with virtual machines, the guest runs in the sandbox, and the host is the process that uses this package. Nothing is
installed in the sandbox. The first request for a set of modules carries their source, and the sandbox keeps the
compiled modules in a file. Later requests carry only the digest of this file (``_core/guest_rpc/payload.py``).
``python3 -I -S`` executes the modules: ``boot.run`` calls ``main`` of the requested module (the entry module), and
prints its answer as JSON. ``mounter`` and ``guard`` are separate programs, which root executes.

Each call pays for its imports. Use ``os`` and the built-in C modules, and import other modules in the function that
needs them. A test names the modules that usual calls must not import. Importing ``os`` takes 1 ms, so the modules that
run commands use ``posix``, the built-in module from which ``os`` takes its functions. Modules marked "Pure; used by
host and guest" also run on the host.
"""
