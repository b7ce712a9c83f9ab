"""What goes over the pipe: frames, their bodies, and who reads and writes them."""
