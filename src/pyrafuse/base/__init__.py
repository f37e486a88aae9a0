"""What needs no torch: errors, registries, files, preprocessing, images in and detections out."""
