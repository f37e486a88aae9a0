"""Where a training's figures go besides its folder's own files: one logger a file."""
