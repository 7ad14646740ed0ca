"""What client, worker, operator and command line agree on. Standard library only, no I/O."""
