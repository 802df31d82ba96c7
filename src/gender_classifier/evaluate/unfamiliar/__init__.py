"""Images that are unlike the training images: how often they count as unfamiliar."""
