"""What the formats share: finding files, judging boxes, telling of what is wrong."""
