"""The words in tensors: pyramids, targets, predictions, files of tensors."""
