"""Programs that rows run in separate processes, to measure their memory alone."""
