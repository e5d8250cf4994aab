"""What runs inside the sandbox: stdlib only, Python 3.8 and later.

The host sends these modules as source with each request (see ``_core/script.py``), so nothing is installed
in the sandbox and no two versions can meet there. They start under ``python3 -I -S`` on the way to every
command, so each import costs the user time: prefer ``os`` and the built-in C modules.
"""
