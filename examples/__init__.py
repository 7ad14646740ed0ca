"""Dataset files, and the demo that uses one."""
