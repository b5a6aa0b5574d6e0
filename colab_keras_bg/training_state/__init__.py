"""What a training consists of, read from Keras and put back."""
