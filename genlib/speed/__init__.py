"""The ladder: ways to draw the same images, or images as good, in less time."""
