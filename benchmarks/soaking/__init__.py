"""The parts of the soak: what is served, the server as a process, who asks, what changes meanwhile, and what may be answered."""
