"""The command line: thin verbs over the run directory and the workers' sockets."""
