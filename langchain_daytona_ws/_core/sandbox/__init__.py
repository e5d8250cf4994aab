"""Create, find, start and delete sandboxes."""
