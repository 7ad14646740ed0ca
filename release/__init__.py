"""What a release consists of beside the source: images and the lists of what is in them."""
