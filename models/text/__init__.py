"""Text as the emotion network reads it: word vectors, and states of a contextual encoder."""
