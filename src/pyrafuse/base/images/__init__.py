"""Images without torch: read from files and cameras, fitted to the network, normalised."""
