"""Programs that rows run in processes of their own, so that what they use of memory is theirs alone."""
