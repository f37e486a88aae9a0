"""mmdetection, of 2.x and 3.x: keys tell the detector, settings or a published name its use."""
