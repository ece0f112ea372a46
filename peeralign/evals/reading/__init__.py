"""How replies are read: option letters, yes or no, numbers, and texts made comparable."""
