"""What a session is made of: one machine, made once, and the file operations over it."""
