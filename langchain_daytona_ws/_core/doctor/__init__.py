"""The findings of a diagnosis, and the checks that produce them. Pure."""
